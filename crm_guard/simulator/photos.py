"""Record images. OAS: `record_photo`; ZOHO docs: download-image, upload-image, delete-image.

The limit on the resolution (OAS: FILE_RESOLUTION_EXCEEDS) is not simulated: images are not looked into.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .envelopes import one, path_record
from .messages import Reply, RequestError, bare, missing_param
from .routes import Kind

if TYPE_CHECKING:
    from .visit import Visit

MAX_BYTES = 10 * 1024 * 1024
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
_EXTENSIONS = ("png", "jpeg", "jpg", "gif", "bmp")
_WITHOUT_PHOTO = frozenset(
    {"Tasks", "Events", "Calls", "Notes", "Campaigns", "Cases", "Solutions", "Price_Books"}
    | {"Quotes", "Sales_Orders", "Purchase_Orders", "Invoices"}
)


class Upload(NamedTuple):
    """One file of a multipart body."""

    name: str
    content: bytes


def download(visit: Visit) -> Reply:
    """GET /{module}/{id}/photo."""
    _check_module(visit)
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    if record.image is None:
        return Reply(status=204)
    # Zoho's Python SDK takes the file's name from this header, and fails without it.
    name = f"attachment;filename*=UTF-8''{record.id}"
    headers = {"Content-Type": _media_type(record.image), "Content-Disposition": name}
    return Reply(status=200, headers=headers, body=record.image)


def upload(visit: Visit) -> Reply:
    """POST /{module}/{id}/photo."""
    _check_module(visit)
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    record.image = _checked_upload(visit).content
    visit.applied(record)
    visit.start_check(record)
    return bare(200, "SUCCESS", "Photo uploaded successfully")


def delete(visit: Visit) -> Reply:
    """DELETE /{module}/{id}/photo. Without a photo the answer is undocumented: taken as success."""
    _check_module(visit)
    record = path_record(visit)
    if refused := visit.refusal(record):
        return one(visit, refused)
    record.image = None
    visit.applied(record)
    return bare(200, "SUCCESS", "Photo deleted successfully")


def _check_module(visit: Visit) -> None:
    """Refuse modules without photos; Deals take uploads only."""
    module, kind = visit.route.module, visit.route.kind
    if module in _WITHOUT_PHOTO or (module == "Deals" and kind is not Kind.PHOTO_POST):
        message = "the module name given seems to be invalid"
        raise RequestError(bare(400, "INVALID_MODULE", message, {"resource_path_index": 0}))


def _checked_upload(visit: Visit) -> Upload:
    found = parse_upload(visit.request.header("Content-Type") or "", visit.request.body)
    if found is None:
        raise RequestError(missing_param("file"))
    if len(found.content) > MAX_BYTES:
        raise RequestError(_too_large(visit.route.version, len(found.content)))
    if not _is_image(found):
        raise RequestError(bare(415, "INVALID_DATA", "invalid file type"))
    return found


def _too_large(version: float, size: int) -> Reply:
    """Version 7 (V7, details undocumented) and version 8 (OAS) disagree about code and status."""
    if version < 8:
        message = "Please check if the file size exceeds the allowed limit"
        return bare(415, "FILE_SIZE_MORE_THAN_ALLOWED_SIZE", message, {"limit": MAX_BYTES})
    return bare(413, "FILE_SIZE_EXCEEDS", "File exceeded its maximum limit", {"size": size})


def _is_image(upload: Upload) -> bool:
    extension = upload.name.rpartition(".")[2].lower()
    return extension in _EXTENSIONS or upload.content.startswith(tuple(start for start, _ in _SIGNATURES))


def _media_type(image: bytes) -> str:
    return next((kind for start, kind in _SIGNATURES if image.startswith(start)), "image/png")


def parse_upload(content_type: str, body: bytes) -> Upload | None:
    """Return the part named `file` of a multipart body, or `None` when there is none."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        return None
    delimiter = b"\r\n--" + boundary[1].encode()
    for part in (b"\r\n" + body).split(delimiter)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        text = head.decode("utf-8", "replace")
        if re.search(r'\bname="?file"?(;|\s|$)', text):
            name = re.search(r'filename="?([^";\r\n]*)', text)
            return Upload(name[1] if name else "", content)
    return None
