"""Images and labels: reading them, choosing what makes a batch, augmenting it.

`datasets` reads, `sampling` orders, `augmentation` crops and colours inside the jitted step, `prepare`
downloads. Import from these modules; nothing is loaded here.
"""
