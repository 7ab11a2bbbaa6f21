//! Drives the real binary against a real PostgreSQL: what a mail client, a sender and an operator see, and what is left
//! after the worst moments.
//!
//! All loads come from this machine's loopback, so every server here runs with `PIXELD_ADDRESS_RATE=off` and
//! `PIXELD_THROTTLE=off` unless a test says otherwise; the defaults would hold one address back, as they should.
//!
//! Each module below holds the tests of one concern, which its first lines name. `support` starts a PostgreSQL and a pixeld of each test's own;
//! `proxy`, `edge_nginx`, `webdriver` and `recount` are tools that several modules share.
#![allow(clippy::unwrap_used, missing_docs)]
#![expect(
    clippy::disallowed_methods,
    reason = "the bans of clippy.toml are for the program; tests start what is on the other side"
)]

mod admin;
mod admin_browser;
mod admin_csv;
mod admin_flow;
mod admin_hits;
mod admin_images;
mod admin_messages;
mod admin_person;
mod backup;
mod backup_throttle;
mod bad_input;
mod browser;
mod clocks;
mod commands;
mod compose;
mod compose_run;
mod contract;
mod crash;
mod database;
mod database_tls;
mod days;
mod disk;
mod docs;
mod edge_nginx;
mod embedded;
mod embedding;
mod erasure;
mod first_steps;
mod forgiven;
mod images;
mod import_django;
mod installation;
mod keys;
mod limits;
mod links;
mod lost_images;
mod monitoring;
mod networks;
mod nginx;
mod nginx_tls;
mod opens;
mod opt_out;
mod opt_out_page;
mod outage;
mod proxy;
mod put_back;
mod recount;
mod retention;
mod rollup;
mod secrets;
mod shared_throttle;
mod shared_throttle_script;
mod signals;
mod small_disk;
mod supervise;
mod support;
mod systemd;
mod telemetry;
mod text;
mod upgrade;
mod walls;
mod webdriver;
mod which;
mod zones;
