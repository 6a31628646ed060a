"""Signatures of classes whose constructor is made from their fields, for the reference: Flax modules, named tuples.

An extension of griffe, which reads the package without importing it.
"""

from typing import Any

import griffe

ROOTS = ("flax.linen.Module", "flax.nnx.Module", "typing.NamedTuple")
SELF = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)


class Fields(griffe.Extension):
    """Gives such classes an `__init__` with their fields and those of their bases."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """The package has been read (griffe's protocol)."""
        for found in _classes(pkg):
            line = [*reversed(found.mro()), found]
            if any(getattr(base, "canonical_path", "") in ROOTS for parent in line for base in parent.bases):
                fields = {field.name: field for parent in line for field in _fields(parent)}
                ordered = sorted(fields.values(), key=lambda field: field.kind is griffe.ParameterKind.keyword_only)
                found.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(SELF, *ordered)))


def _classes(module: griffe.Module) -> list[griffe.Class]:
    inner = [found for part in module.modules.values() if not part.is_alias for found in _classes(part)]
    return inner + [found for found in module.classes.values() if not found.is_alias]


def _fields(found: griffe.Class) -> list[griffe.Parameter]:
    decorators = " ".join(str(decorator.value) for decorator in found.decorators)
    by_name = str(found.keywords.get("kw_only")) == "True" or "kw_only=True" in decorators
    return [
        _parameter(field, by_name)
        for field in found.attributes.values()
        if not field.is_alias and field.annotation is not None and "property" not in field.labels
    ]


def _parameter(field: griffe.Attribute, by_name: bool) -> griffe.Parameter:
    # Of `rngs: InitVar[nnx.Rngs] = field(kw_only=True)` the reader wants `*, rngs: nnx.Rngs`.
    alone = "field(" in str(field.value)
    kinds = griffe.ParameterKind
    annotation: Any = field.annotation
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "InitVar":
        annotation = annotation.slice
    kind = kinds.keyword_only if by_name or alone else kinds.positional_or_keyword
    return griffe.Parameter(field.name, annotation=annotation, kind=kind, default=None if alone else field.value)
