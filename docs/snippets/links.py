"""Makes pixeld's links with Python's standard library."""

import base64, hashlib, hmac, html, re, struct, uuid
from urllib.parse import quote

NONE = uuid.UUID(int=0)
UUID = re.compile("[0-9a-f]{8}(-?)[0-9a-f]{4}\\1[0-9a-f]{4}\\1[0-9a-f]{4}\\1[0-9a-f]{12}", re.IGNORECASE)


def keyed_link(base_url, image, message_key, recipient_key):
    """A link with your own ids as they are. Anybody can make up others."""
    return f"{base_url}/t/{image}/{quote(message_key, safe='')}/{quote(recipient_key, safe='')}.gif"


def signed_link(base_url, key_id, key, image, message=NONE, recipient=NONE, sent_at=0):
    """A link that nobody can make up or change. sent_at is in seconds since 1970; 0 is unknown."""
    return f"{base_url}/o/{token(key_id, key, sent_at, image, message, recipient)}.gif"


def token(key_id, key, sent_at, image, message=NONE, recipient=NONE):
    signed = struct.pack(">BBI", 1, key_id, sent_at) + image.bytes + message.bytes + recipient.bytes
    mac = hmac.new(key, signed, hashlib.sha256).digest()[:16]
    return base64.urlsafe_b64encode(signed + mac).rstrip(b"=").decode()


def key_id_of(namespace, key):
    """The UUID that pixeld stores for a key; namespace is what `pixeld namespace` prints."""
    return uuid.UUID(key) if UUID.fullmatch(key) else uuid.uuid5(namespace, key)


def image_tag(url, width=1, height=1):
    return f'<img src="{html.escape(url)}" width="{width}" height="{height}" alt="">'
