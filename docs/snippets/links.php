<?php
// Makes pixeld's links with PHP 8 and nothing else.

namespace Pixeld;

const NONE = "00000000-0000-0000-0000-000000000000";
const UUID = '/^[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}$/Di';
const INVISIBLE = '/[\x00-\x08\x0a-\x1f\x7f-\x{9f}\x{ad}\x{61c}\x{180e}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{206f}\x{feff}\x{fff9}-\x{fffb}]/u';
const BLANK = '/[\t\x{a0}\x{1680}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}]/u';

function bytes_of(string $uuid): string
{
    return hex2bin(str_replace("-", "", $uuid));
}

// A link with your own ids as they are. Anybody can make up others.
function keyed_link(string $base_url, string $image, string $message_key, string $recipient_key): string
{
    return "$base_url/t/$image/" . rawurlencode($message_key) . "/" . rawurlencode($recipient_key) . ".gif";
}

// A link that nobody can make up or change. $sent_at is in seconds since 1970; 0 is unknown.
function signed_link(
    string $base_url,
    int $key_id,
    string $key,
    string $image,
    string $message = NONE,
    string $recipient = NONE,
    int $sent_at = 0,
): string {
    return "$base_url/o/" . token($key_id, $key, $sent_at, $image, $message, $recipient) . ".gif";
}

function token(
    int $key_id,
    string $key,
    int $sent_at,
    string $image,
    string $message = NONE,
    string $recipient = NONE,
): string {
    $signed = pack("CCN", 1, $key_id, $sent_at) . bytes_of($image) . bytes_of($message) . bytes_of($recipient);
    $mac = substr(hash_hmac("sha256", $signed, $key, true), 0, 16);
    return rtrim(strtr(base64_encode($signed . $mac), "+/", "-_"), "=");
}

// A key as pixeld reads it: decoded, without invisible characters, and without blanks at its ends.
function read_key(string $key): string
{
    $decoded = rawurldecode($key);
    $read = trim(preg_replace(BLANK, " ", preg_replace(INVISIBLE, "", $decoded)) ?? $decoded, " ");
    return $read === $key ? $read : read_key($read);
}

// The UUID that pixeld stores for a key; $namespace is what `pixeld namespace` prints.
function key_id_of(string $namespace, string $key): string
{
    $key = read_key($key);
    if (preg_match(UUID, $key)) {
        return $key;
    }
    $id = substr(sha1(bytes_of($namespace) . $key, true), 0, 16);
    $id[6] = chr((ord($id[6]) & 0x0f) | 0x50);
    $id[8] = chr((ord($id[8]) & 0x3f) | 0x80);
    return vsprintf("%s%s-%s-%s-%s-%s%s%s", str_split(bin2hex($id), 4));
}

function image_tag(string $url, int $width = 1, int $height = 1): string
{
    return '<img src="' . htmlspecialchars($url) . "\" width=\"$width\" height=\"$height\" alt=\"\">";
}
