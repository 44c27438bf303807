"""Signatures as they are written in the code: `Array`, not the private class behind it."""

from sphinx.application import Sphinx

SHORT = {
    "jax.jaxlib._jax.Array": "Array",
    "jaxlib._jax.Array": "Array",
    "Float[Array, '']": "Scalar",
    "Key[Array, ''] | UInt32[Array, '2'] | UInt32[Array, '4']": "PRNGKeyArray",
}


def shortened(text: str | None) -> str | None:
    for long, short in SHORT.items():
        text = text and text.replace(long, short)
    return text


def shorten(app: Sphinx, what, name, obj, options, signature: str | None, returns: str | None):
    return shortened(signature), shortened(returns)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
