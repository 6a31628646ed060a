"""Images and labels: reading them, choosing what makes a batch, augmenting it.

`datasets` reads (with `tfds`, `packs` and `own_images`, one for each kind of file), `sampling` orders, `augmentation`
crops and colours inside the jitted step; `prepare` downloads and `make_pack` packs. Import from these modules; nothing
is loaded here.
"""
