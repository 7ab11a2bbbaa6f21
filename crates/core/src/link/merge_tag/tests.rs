//! Tags from the documentation of programs, and keys that look slightly like them.

use proptest::prelude::*;

use super::*;
use crate::link::key::{Key, KeyError};

/// Tags and their programs, from their documentation (or source) in 2026.
const TAGS: &[(&str, &str)] = &[
    ("*|UNIQID|*", "Mailchimp, mailchimp.com/help/all-the-merge-tags-cheat-sheet"),
    ("*|DATE:d.m.y|*", "Mailchimp"),
    ("{{ .Subscriber.UUID }}", "listmonk, listmonk.app/docs/templating"),
    ("{{ contact.CUSTOMER_ID }}", "Brevo"),
    ("{{ subscriber.id }}", "Buttondown, github.com/buttondown/docs"),
    ("{{lead.Id:default=none}}", "Marketo"),
    ("{{${user_id}}}", "Braze"),
    ("{{{id}}}", "Handlebars without escaping"),
    ("{% if id %}", "Liquid, Jinja"),
    ("{{cf.key}}", "emailit.com/docs/campaigns/merge-tags"),
    ("%%jobid%%", "Salesforce Marketing Cloud"),
    ("%%=v(@id)=%%", "Salesforce's AMPscript"),
    ("%%!message_id%%", "Bronto, knowledge.validity.com"),
    ("%%subscriber_id%%", "GreenArrow, greenarrowemail.com/docs/greenarrow-studio/Replacement-Codes"),
    ("%%merge members_.memberidguid_%%", "Lyris"),
    ("{contactfield=id}", "Mautic, TokenHelper of github.com/mautic/mautic"),
    ("{contactfield=id|none}", "Mautic"),
    ("{$id}", "MailerLite, Smarty"),
    ("{!contactID}", "AWeber"),
    ("{EMAIL}", "CleverReach"),
    ("{name}", "Sailthru, docs.sailthru.com/replacement-variables"),
    ("{|Subscriber.Id|}", "Sitefinity, progress.com/documentation/sitefinity-cms"),
    ("{subtag:id}", "AcyMailing"),
    ("{0}", "a format string of .NET or Python"),
    ("{}", "a format string of Python or Rust"),
    ("::subscriber.uuid::", "Mailcoach, PersonalizeHtmlAction of github.com/spatie/laravel-mailcoach"),
    ("::campaignSendUuid::", "Mailcoach"),
    ("${id}", "FreeMarker, Oracle Responsys, template literals"),
    ("#{id}", "Ruby"),
    ("%{id}", "Ruby, Discourse"),
    ("$[UID]$", "Zoho Campaigns"),
    ("$SUBSCRIBER.EMAIL$", "Constant Contact, knowledge.validity.com"),
    ("$id$", "StringTemplate"),
    ("$(id)", "shells"),
    ("$user_address", "Mailman, docs.mailman3.org"),
    ("$subscriber->id", "PHP in single quotes"),
    ("$!id", "Velocity"),
    ("%(user_address)s", "Python, Mailman 2"),
    ("%s", "printf"),
    ("%SUBSCRIBERID%", "ActiveCampaign"),
    ("%ID%", "ActiveCampaign"),
    ("%ACCOUNT_ID%", "ActiveCampaign, whose front is a percent-encoded byte, too"),
    ("%recipient.id%", "Mailgun, documentation.mailgun.com"),
    ("%recipient_email%", "Mailgun"),
    ("@@ID@@", "many of one company's own"),
    ("@ID@", "dotdigital"),
    ("##id##", "many of one company's own"),
    ("#ID#", "Bitrix24"),
    ("#recipient:id#", "Moosend"),
    ("~Contact.Id~", "Keap, formerly Infusionsoft"),
    ("~~EMAIL~~", "e-marketeer.co.uk/help"),
    ("__THIRDPARTY_ID__", "Dolibarr, functions.lib.php"),
    ("-customerID-", "SendGrid, twilio.com/docs/sendgrid/for-developers/sending-email/substitution-tags"),
    ("-name-", "SendGrid"),
    ("[UNIQID]", "phpList, Brevo's older ones"),
    ("[SUBSCRIBER_UID]", "MailWizz"),
    ("[subscriber:email]", "MailPoet"),
    ("[[contact_id]]", "GetResponse"),
    ("[[data:id:\"\"]]", "Mailjet"),
    ("[[EMAIL_TO email]]", "Sendmachine, developers.sendmachine.com/campaign_macros.html"),
    ("[% member:id %]", "Emma"),
    ("[*to]", "PowerMTA"),
    ("<%= recipient.id %>", "Adobe Campaign, knowledge.validity.com"),
    ("<?= $id ?>", "PHP"),
    ("<span class=eloquaemail>Id</span>", "Oracle Eloqua"),
    ("<pstag:recipientID value=x />", "Siebel, docs.oracle.com"),
    ("<<First name>>", "Yet Another Mail Merge"),
    ("@(Model.Id)", "Razor"),
    ("&lt;%= id %&gt;", "ERB that was escaped for HTML"),
    ("&#42;|UNIQID|&#42;", "Mailchimp, escaped"),
    ("&#x7B;&#x7B;id&#x7D;&#x7D;", "Liquid, escaped"),
    ("«Email»", "a mail merge of Microsoft Word"),
];

const HALVES: &[&str] = &[
    "{{id",
    "id}}",
    "{id",
    "${id",
    "{$id",
    "*|ID",
    "ID|*",
    "[[id",
    "id]]",
    "%%ID",
    "ID%%",
    "<%= id",
    "id %>",
    "{% id",
    "id %}",
    "{{ .Subscriber",
    "may-{{id",
];

const NOTHING: &[&str] = &[
    "undefined",
    "null",
    "NULL",
    "None",
    "NaN",
    "nan",
    "nil",
    "(null)",
    "<nil>",
    "<no value>",
    "[object Object]",
    "#N/A",
    "#REF!",
    "NaT",
    "\"undefined\"",
    "'null'",
    "#NAME?",
    "#NV",
    "#BEZUG!",
    "#¡VALOR!",
    "#DIV/0!",
    "\\N",
    "&lt;null&gt;",
];

/// Keys of real senders.
const KEYS: &[&str] = &[
    "100%",
    "a@@b",
    "x$1",
    "50%off",
    "c2VjcmV0IQ==",
    "aGVsbG8+/w=",
    "-_aZ09-",
    "_x_",
    "__9__",
    "a[1]",
    "[x",
    "[",
    "*",
    "*|*",
    "|*x*|",
    "%%",
    "%%x",
    "100%%",
    "{01234567-89ab-cdef-0123-456789abcdef}",
    "{A1234567-89ab-cdef-0123-456789abcdef}",
    "{4711}",
    "[4711]",
    "[\"4711\"]",
    "[01234567-89ab-cdef-0123-456789abcdef]",
    "O&#39;Neil",
    "AT&amp;T",
    "&lt;jane@example.com&gt;",
    "a<<1",
    "News >> May",
    "a<<b",
    "Meeting @(Berlin)",
    "$2y$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
    "$argon2id$v=19$m=65536,t=3$c2FsdA$aGFzaA",
    "-N2x8dKq3Zp7vQwRt5Y-",
    "arn:aws:iam::123456789012:user/x",
    "#a!",
    "#!",
    "#42!",
    "{\"id\":4711}",
    "@jane@mastodon.example",
    "jane@example.com",
    "<jane@example.com>",
    "<4711>",
    "$RCAnonymousID:87c6049c58069238dce29853916d624c",
    "$device:18f",
    "tenant::user::42",
    "2001:db8::1",
    "::1",
    "::ffff:192.0.2.1",
    "Jane Doe",
    "Doe, Jane (VIP)",
    "jane+news@example.com",
    "C#",
    "a#1#b",
    "#4711",
    "~jane",
    "user%example.com@relay.example",
    "nilsson",
    "none",
    "nullmeier",
    "Nan",
    "d-f-",
    "-1-",
    "4711.50",
    "a|b",
    "key=value",
    "O'Neil",
    "$5",
    "a$b$c",
    "Zoë",
    "100%25",
    "1:2:3",
    "--",
    "-",
    "____",
    "R$ 5",
];

#[test]
fn tags_of_common_programs_are_unfilled_alone_within_a_key_and_encoded() {
    for (tag, of) in TAGS {
        assert!(is_unfilled(tag.as_bytes()), "{tag} of {of}");
        let encoded: String = tag.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let twice = encoded.replace('%', "%25");
        for part in [*tag, &encoded, &twice, &format!("%20{encoded}%20")] {
            assert_eq!(Key::in_path(part), Err(KeyError::Unmerged), "{part}: {tag} of {of}");
        }
        assert_eq!(Key::typed(tag), Err(KeyError::Unmerged), "{tag} of {of}");
    }
}

#[test]
fn halves_and_words_for_nothing_are_unfilled_and_keys_are_not() {
    for text in HALVES.iter().chain(NOTHING) {
        assert_eq!(Key::in_path(text), Err(KeyError::Unmerged), "{text}");
        assert_eq!(Key::in_path(&format!(" {text}%E2%80%8B")), Err(KeyError::Unmerged), "{text}");
    }
    for key in KEYS {
        assert!(!is_unfilled(key.as_bytes()), "{key}");
    }
    for part in ["%C3%BCber%C3%9F", "100%25", "%2Fa%20b%2F", "a%FCber%20b", "%E2%82%AC50", "50%C3%A4%20x"] {
        assert_ne!(Key::in_path(part), Err(KeyError::Unmerged), "{part}");
    }
}

proptest! {
    #[test]
    fn what_ids_are_made_of_is_never_a_tag(
        hex in "[0-9a-f]{8,64}", base64 in "[A-Za-z0-9+/]{8,40}={0,2}", url in "[A-Za-z0-9][A-Za-z0-9_-]{7,40}",
        address in "[a-z0-9][a-z0-9.+_-]{0,20}@[a-z0-9-]{1,10}\\.[a-z]{2,6}", name in "[A-Z][a-zäöüé]{2,8}1? [A-Z][a-zäöüé'-]{2,9}",
        number in "[+]?[0-9][0-9 ()/.-]{1,16}%?", id: u128, parts in "[a-z0-9]{1,8}(::?[a-z0-9]{1,8}){1,3}",
    ) {
        let uuid = uuid::Uuid::from_u128(id);
        for key in [hex, base64, url, address, name, number, uuid.to_string(), format!("{{{uuid}}}"), parts] {
            prop_assert!(!is_unfilled(key.as_bytes()), "{}", key);
        }
    }

    #[test]
    fn any_bytes_are_read(bytes: Vec<u8>, signs in "[%{}\\[\\]*|$#:@~<>«_ a-c-]{0,24}") {
        let _ = (is_unfilled(&bytes), is_unfilled(signs.as_bytes()), Key::in_path(&signs).is_ok());
    }
}
