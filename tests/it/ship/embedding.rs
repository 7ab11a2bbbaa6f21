//! docs/embedding.md is true: its programs and tags make links that a real pixeld records as the page says.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use pixeld_core::link::merge_tag::is_unfilled;
use uuid::Uuid;

use crate::kit::support::{App, beside};

const PAGE: &str = include_str!("../../../docs/embedding.md");
const SNIPPETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/snippets");
const PYTHON: &str = include_str!("../../../docs/snippets/links.py");
const NODE: &str = include_str!("../../../docs/snippets/links.js");
const PHP: &str = include_str!("../../../docs/snippets/links.php");
const SMTP: &str = include_str!("../../../docs/snippets/send.py");

/// The bytes 0 to 31.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The placeholders for the reader's own address and image.
const EXAMPLE_URL: &str = "https://pixels.example.com";
const EXAMPLE_IMAGE: &str = "5a3b1e00-0000-4000-8000-000000000001";

/// The page's code in a language, block by block.
fn blocks(language: &str) -> Vec<&'static str> {
    let parts = PAGE.split(&format!("```{language}\n")).skip(1).collect::<Vec<_>>();
    parts.into_iter().map(|part| part.split("```").next().unwrap()).collect()
}

/// [`PAGE`]'s text for this pixeld.
fn here(app: &App, text: &str) -> String {
    text.replace(EXAMPLE_URL, &format!("http://{}", app.server.public())).replace(EXAMPLE_IMAGE, &app.image.to_string())
}

fn fetch(app: &App, url: &str) {
    let path = url.strip_prefix(&format!("http://{}", app.server.public())).unwrap_or_else(|| panic!("{url}"));
    let answer = app.get(path);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")), "{url}");
}

/// What a program in one of the languages prints, line by line.
fn printed(app: &App, interpreter: &str, code: &str, namespace: &str) -> Vec<String> {
    let file = app.dir.path().join("program");
    std::fs::write(&file, code).unwrap();
    let program = Command::new(interpreter).arg(&file).env("SIGNING_KEY", KEY).env("NAMESPACE", namespace).output();
    let program = program.unwrap_or_else(|error| panic!("{interpreter}: {error}"));
    assert!(program.status.success(), "{interpreter}: {}", String::from_utf8_lossy(&program.stderr));
    String::from_utf8(program.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_page_shows_the_snippets_as_they_are() {
    for (language, at, file) in [("python", 0, PYTHON), ("js", 0, NODE), ("php", 0, PHP), ("python", 2, SMTP)] {
        assert!(blocks(language)[at] == file, "the page's {language} is not that of docs/snippets");
    }
}

#[test]
fn the_links_that_each_language_makes_are_recorded_as_they_say() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_SIGNING_KEYS", format!("1:{KEY}")));
    let id = |key: &str| app.server.settings().run(&["namespace", key]).unwrap().trim().to_owned();
    let namespace = app.server.settings().run(&["namespace"]).unwrap().trim().to_owned();
    let (message, keyed, signed) = (id("may-news"), id("customer-0815"), id("4711"));
    // Each is written into the language's own quotes, so they contain neither kind.
    let odd = [
        "Zoë/4 711",
        "jane@example.com",
        "a+b&c=d?e#f%g",
        "(*!.~_-)",
        "00000000-0000-4000-9000-00000000000A",
        "x.gif",
        "photo.jpg (2)",
        "a.gif&b",
        " 47\u{200b}11.50\u{a0}",
        "jane%2540example.net",
    ];
    let listed = odd.map(|key| format!("\"{key}\"")).join(", ");
    let print_odd = [
        format!("for key in [{listed}]: print(keyed_link(BASE_URL, IMAGE, \"odd\", key))\n"),
        format!("for (const key of [{listed}]) console.log(keyedLink(BASE_URL, IMAGE, \"odd\", key));\n"),
        format!("foreach ([{listed}] as $key) echo keyed_link(BASE_URL, IMAGE, \"odd\", $key), \"\\n\";\n"),
    ];
    let programs = [("python3", "python", PYTHON), ("node", "js", NODE), ("php", "php", PHP)];
    for (round, ((interpreter, language, snippet), print_odd)) in programs.into_iter().zip(print_odd).enumerate() {
        let code = here(&app, &format!("{snippet}\n{}\n{print_odd}", blocks(language)[1]));
        let links = printed(&app, interpreter, &code, &namespace);
        assert_eq!(links.len(), 2 + odd.len(), "{interpreter}: {links:?}");
        links.iter().for_each(|link| fetch(&app, link));
        app.at_rest();
        let hits = round as u64 + 1;
        let of = |message: &str, recipient: &str, more: &str| {
            let whose = format!("message = '{message}' AND recipient = '{recipient}'");
            app.number(&format!("SELECT count(*) FROM hits WHERE {whose} AND {more}"))
        };
        assert_eq!(of(&message, &keyed, "sent_at IS NULL"), hits, "{interpreter}: {}", links[0]);
        let just_sent = "sent_at BETWEEN now() - interval '1 minute' AND now() + interval '2 s'";
        assert_eq!(of(&message, &signed, just_sent), hits, "{interpreter}: {}", links[1]);
        for key in odd {
            assert_eq!(of(&id("odd"), &id(key), "true"), hits, "{interpreter}: {key}");
        }
    }
}

#[test]
fn the_mailing_programs_tags_are_recorded_only_when_filled_in() {
    let _machine = beside();
    let app = App::start();
    let uuids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"];
    let recipes = [
        (&["may-news", "4711"][..], &[][..]),
        (&["3f2a1b", "9c8d7e6f5a"], &["*|CAMPAIGN_UID|*", "*|UNIQID|*"]),
        (&uuids, &["{{ .Campaign.UUID }}", "{{ .Subscriber.UUID }}"]),
        (&["may-news", "0815"], &["{{ contact.CUSTOMER_ID }}"]),
    ];
    let tags = blocks("html");
    assert_eq!(tags.len(), recipes.len());
    let source = |tag: &str| here(&app, tag.split('"').nth(1).unwrap());
    for (tag, (keys, merge_tags)) in tags.iter().zip(recipes) {
        assert!(
            tag.starts_with("<img src=\"") && tag.trim_end().ends_with("width=\"1\" height=\"1\" alt=\"\">"),
            "{tag}"
        );
        let values = &keys[keys.len() - merge_tags.len()..];
        let merged = merge_tags.iter().zip(values).fold(source(tag), |url, (tag, value)| {
            assert!(url.contains(tag), "{url} has no {tag}");
            url.replace(tag, value)
        });
        assert!(!is_unfilled(merged.as_bytes()), "{merged}");
        fetch(&app, &merged);
        app.at_rest();
        let ids = app.server.settings().run(&["namespace", keys[0], keys[1]]).unwrap();
        let (message, recipient) = ids.trim().split_once('\n').unwrap();
        let rows = format!("SELECT count(*) FROM hits WHERE message = '{message}' AND recipient = '{recipient}'");
        assert_eq!(app.number(&rows), 1, "{merged}");
    }
    // As a mail program sends unfilled tags: with encoded blanks.
    let left: Vec<String> = tags.iter().map(|tag| source(tag)).filter(|url| is_unfilled(url.as_bytes())).collect();
    left.iter().for_each(|url| fetch(&app, &url.replace(' ', "%20")));
    let others = PAGE.lines().filter(|line| line.starts_with("| ")).flat_map(|line| line.split('`').skip(1).step_by(2));
    let others: Vec<&str> = others.collect();
    assert_eq!(others.len(), 3, "{others:?}");
    for tag in &others {
        let path = format!("/t/{}/may-news/{}.gif", app.image, tag.replace(' ', "%20"));
        assert_eq!(app.get(&path).status, 200, "{path}");
    }
    let metrics = app.at_rest();
    let unmerged = metrics.get("pixeld_requests_total{outcome=\"unmerged\"}");
    assert_eq!(unmerged, (left.len() + others.len()) as f64);
    assert_eq!(app.number("SELECT count(*) FROM hits"), recipes.len() as u64);
}

/// Accepts one email like a mail server. Returns its bytes, and the recipient.
fn take_one_email(listener: &TcpListener) -> (Vec<u8>, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut out = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream);
    let mut answer = |text: &str| out.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    let (mut email, mut to) = (Vec::new(), String::new());
    answer("220 mail.example.com ESMTP");
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        match line.trim_end().split([' ', ':']).next().unwrap().to_ascii_uppercase().as_str() {
            "QUIT" => {
                answer("221 bye");
                return (email, to);
            }
            "DATA" => {
                answer("354 go on");
                loop {
                    let mut bytes = Vec::new();
                    lines.read_until(b'\n', &mut bytes).unwrap();
                    if bytes == b".\r\n" {
                        break;
                    }
                    email.extend_from_slice(bytes.strip_prefix(b".").unwrap_or(&bytes));
                }
            }
            "RCPT" => to = line.trim_end().to_owned(),
            _ => {}
        }
        answer("250 ok");
    }
}

#[test]
fn an_email_that_goes_over_smtp_has_text_and_html_and_its_pixel_is_recorded() {
    let _machine = beside();
    let app = App::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let python = |code: &str, input: &[u8]| {
        let mut program = Command::new("python3");
        program.args(["-c", code]).current_dir(SNIPPETS).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut program = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        program.stdin.take().unwrap().write_all(input).unwrap();
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let code = format!(
        "import links, send\n\
         pixel = links.keyed_link('http://{}', '{}', '{message}', '{recipient}')\n\
         html = '<html><body><p>Grüße aus dem Mai.</p></body></html>'\n\
         people = ['news@example.com', 'jane@example.net']\n\
         email = send.message(*people, 'News of May', 'Grüße aus dem Mai.\\n', html, pixel)\n\
         send.send('127.0.0.1', {}, [email])\n",
        app.server.public(),
        app.image,
        listener.local_addr().unwrap().port()
    );
    let (email, to) = std::thread::scope(|scope| {
        let taking = scope.spawn(|| take_one_email(&listener));
        python(&code, b"");
        taking.join().unwrap()
    });
    assert!(to.contains("<jane@example.net>"), "{to}");
    // Parsed like in a mail program.
    let read = "import email, email.policy, sys\n\
                mail = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)\n\
                print(mail.get_content_type(), mail['Subject'], sep='|')\n\
                print(mail.get_body(('plain',)).get_content().strip())\n\
                print(mail.get_body(('html',)).get_content().strip())\n";
    let read = python(read, &email);
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines[..2], ["multipart/alternative|News of May", "Grüße aus dem Mai."]);
    let (before, tag) = lines[2].split_once("<img src=\"").unwrap();
    assert_eq!(before, "<html><body><p>Grüße aus dem Mai.</p>");
    let (url, rest) = tag.split_once('"').unwrap();
    assert_eq!(rest, " width=\"1\" height=\"1\" alt=\"\"></body></html>");
    fetch(&app, url);
    app.at_rest();
    let rows = format!("SELECT count(*) FROM hits WHERE message = '{message}' AND recipient = '{recipient}'");
    assert_eq!(app.number(&rows), 1);
}
