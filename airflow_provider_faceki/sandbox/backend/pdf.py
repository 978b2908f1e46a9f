# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The PDF report of a verification: one page, with optional padding for tests that need a large file."""

from __future__ import annotations


def report(request_id: str, decision: str, padding: int = 0) -> bytes:
    """Return a valid PDF file of one page, which contains no personal data.

    :param padding: the number of bytes that a comment adds to the file.
    """
    lines = f"BT /F1 14 Tf 50 780 Td (FACEKI sandbox report {request_id}) Tj 0 -24 Td (Decision: {decision}) Tj ET"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        " /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(lines)} >>\nstream\n{lines}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    out = bytearray(b"%PDF-1.4\n")
    if padding:
        out += b"%" + b"0" * padding + b"\n"
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{each}\nendobj\n".encode("latin-1", "replace")
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += "".join(f"{place:010} 00000 n \n" for place in places).encode()
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)
