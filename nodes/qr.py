"""QR codes for pages."""

from __future__ import annotations

import segno
from django.utils.safestring import SafeString, mark_safe


def qr_code(text: str) -> SafeString:
    """A QR code as inline SVG without style attributes (the content security policy forbids those)."""
    svg = segno.make(text, error="m").svg_inline(border=1, omitsize=True, svgclass=None, lineclass=None)
    return mark_safe(svg)  # noqa: S308 - segno's own markup; the text only decides which squares are dark
