//! Drives the real binary against a real PostgreSQL: what a mail client, a sender and an operator see, and what is left
//! after the worst moments.
//!
//! All loads come from this machine's loopback, so every server here runs with `PIXELD_ADDRESS_RATE=off` and
//! `PIXELD_THROTTLE=off` unless a test says otherwise; the defaults would hold one address back, as they should.
//!
//! # Layout
//! - `support`: a PostgreSQL and a pixeld of each test's own, and its load.
//! - `proxy`: stands between pixeld and PostgreSQL, and cuts or freezes connections.
//! - `contract`, `bad_input`, `images`, `keys`, `commands`, `limits`, `links`, `networks`, `opens`, `opt_out`, `opt_out_page`, `browser`, `first_steps`, `telemetry`: what people see.
//! - `docs`, `embedding`, `monitoring`: the pages of docs/, with their programs, alert rules and dashboard, are true.
//! - `admin`, `admin_messages`, `admin_csv`, `admin_images`, `admin_person`, `admin_browser`, `admin_flow`: the admin page, over HTTP and in Chromium (`webdriver`); lists that go there and back.
//! - `zones`: days and hours of people's own zones.
//! - `erasure`: forgetting a recipient on every node, and what is held on one.
//! - `crash`, `outage`, `disk`, `small_disk`: what is left after the worst moments.
//! - `database`, `database_tls`: a PostgreSQL of somebody's own: its encoding, rights, TLS, poolers.
//! - `retention`: what is beyond it goes, under load; `clocks`: nothing goes while they cannot be right.
//! - `days`: five years of days, and days whose changes somebody publishes.
//! - `backup`, `backup_throttle`, `upgrade`: restoring by the commands of the docs, also with the throttle on; from every earlier schema to this one.
//! - `rollup`, `recount`: opens and counts are what the hits say, whatever happens.
//! - `shared_throttle`, `shared_throttle_script`: two nodes and a real Redis, which stops, freezes and forgets.
//! - `import_django`: moving over from the Django app, with the data of a real one (tests/fixtures/django-app).
//! - `embedded`: the PostgreSQL that pixeld runs itself.
//! - `nginx` and `nginx_tls` (through `edge_nginx`), `compose` and `compose_run`, `systemd`: how it is shipped: the
//!   repository's own nginx configuration, what docker-compose.yml and the Dockerfile describe, the unit.
#![allow(clippy::unwrap_used, missing_docs)]

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
mod support;
mod systemd;
mod telemetry;
mod text;
mod upgrade;
mod walls;
mod webdriver;
mod which;
mod zones;
