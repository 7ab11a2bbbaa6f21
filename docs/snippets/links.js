// Makes pixeld's links with Node's standard library.

const crypto = require("node:crypto");

const NONE = "00000000-0000-0000-0000-000000000000";
const UUID = /^[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}$/i;
const INVISIBLE =
  /[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const BLANK = /[\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]/g;

const bytesOf = (uuid) => Buffer.from(uuid.replaceAll("-", ""), "hex");

// A link with your own ids as they are. Anybody can make up others.
function keyedLink(baseUrl, image, messageKey, recipientKey) {
  return `${baseUrl}/t/${image}/${encodeURIComponent(messageKey)}/${encodeURIComponent(recipientKey)}.gif`;
}

// A link that nobody can make up or change. sentAt is in seconds since 1970; 0 is unknown.
function signedLink(baseUrl, keyId, key, image, message = NONE, recipient = NONE, sentAt = 0) {
  return `${baseUrl}/o/${token(keyId, key, sentAt, image, message, recipient)}.gif`;
}

function token(keyId, key, sentAt, image, message = NONE, recipient = NONE) {
  const head = Buffer.alloc(6);
  head.writeUInt8(1, 0);
  head.writeUInt8(keyId, 1);
  head.writeUInt32BE(sentAt, 2);
  const signed = Buffer.concat([head, bytesOf(image), bytesOf(message), bytesOf(recipient)]);
  const mac = crypto.createHmac("sha256", key).update(signed).digest().subarray(0, 16);
  return Buffer.concat([signed, mac]).toString("base64url");
}

// A key as pixeld reads it: decoded, without invisible characters, and without blanks at its ends.
function readKey(key) {
  const decoded = key.replace(/(%[0-9a-f]{2})+/gi, (bytes) => bytesOf(bytes.replaceAll("%", "")).toString());
  const read = decoded.replace(INVISIBLE, "").replace(BLANK, " ").replace(/^ +| +$/g, "");
  return read === key ? read : readKey(read);
}

// The UUID that pixeld stores for a key; namespace is what `pixeld namespace` prints.
function keyIdOf(namespace, key) {
  key = readKey(key);
  if (UUID.test(key)) return key;
  const id = crypto.createHash("sha1").update(bytesOf(namespace)).update(key).digest().subarray(0, 16);
  id[6] = (id[6] & 0x0f) | 0x50;
  id[8] = (id[8] & 0x3f) | 0x80;
  return id.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function imageTag(url, width = 1, height = 1) {
  const escaped = url.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  return `<img src="${escaped}" width="${width}" height="${height}" alt="">`;
}

module.exports = { keyedLink, signedLink, token, readKey, keyIdOf, imageTag };
