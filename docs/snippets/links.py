"""Makes pixeld's links with Python's standard library."""

import base64, hashlib, hmac, html, re, struct, uuid
from urllib.parse import quote, unquote

NONE = uuid.UUID(int=0)
UUID = re.compile("[0-9a-f]{8}(-?)[0-9a-f]{4}\\1[0-9a-f]{4}\\1[0-9a-f]{4}\\1[0-9a-f]{12}", re.IGNORECASE)
INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\xad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]"
)
BLANK = re.compile("[\\t\\xa0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000]")


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


def read_key(key):
    """A key as pixeld reads it: decoded, without invisible characters, and without blanks at its ends."""
    read = BLANK.sub(" ", INVISIBLE.sub("", unquote(key))).strip(" ")
    return read if read == key else read_key(read)


def key_id_of(namespace, key):
    """The UUID that pixeld stores for a key; namespace is what `pixeld namespace` prints."""
    key = read_key(key)
    return uuid.UUID(key) if UUID.fullmatch(key) else uuid.uuid5(namespace, key)


def image_tag(url, width=1, height=1):
    return f'<img src="{html.escape(url)}" width="{width}" height="{height}" alt="">'
