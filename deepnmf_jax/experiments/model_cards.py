"""A card for each network that comes with the package: what it is, its data, recipe and numbers, from its record."""

from deepnmf_jax.experiments.tables import table
from deepnmf_jax.models import load_pretrained, pretrained_names


def cards() -> str:
    """The cards of all pretrained networks, in the order of their names, as Markdown."""
    return "\n\n".join(card(name) for name in pretrained_names())


def card(name: str) -> str:
    """One card: a heading and a table."""
    trained = load_pretrained(name)
    model, results = trained.model, trained.results
    layers = {"nmf": "NMF layers", "conv": "convolutions of normalised patches"}[model.layer]
    data, config = results["dataset"], results["config"]
    height, width, channels = trained.image_shape
    mixing = ", each with a 1x1 convolution behind it" if model.mixing else ""
    accuracy = f"{results['test_accuracy']:.2%} on {data['test_images']:,} test images"
    held_out = f"{results['validation_accuracy']:.2%} on the {data['validation_images']:,} held out"
    rows = [
        ("network", f"{len(model.kernels)} blocks of {layers}{mixing}; {results['parameters']:,} parameters"),
        ("takes", f"images of {height} x {width} pixels, {channels} channels, in [0, 1]: `prepare` makes them"),
        ("gives", f"logits of {model.num_classes} classes: {', '.join(trained.class_names)}"),
        ("trained on", f"{data['train_images']:,} images of {data['name']}, the JPEG copy {data['fingerprint'][:12]}"),
        ("recipe", f"`{results['config_file']}`, {results['epochs']} epochs of batches of {config['batch_size']}, "
                   f"seed {results['seed']}"),
        ("test accuracy", f"{accuracy}; {held_out}, by which epoch {results['best_epoch']} was chosen"),
        ("made", f"{results['date'][:10]} in {results['seconds'] / 60:.1f} minutes on {results['device']}, "
                 f"jax {results['versions']['jax']}, flax {results['versions']['flax']}"),
    ]  # fmt: skip
    return f"## {name}\n\n{table(rows, ('', ''))}"
