//! How it is shipped: documents, commands, nginx, compose, systemd, monitoring, moving over; the rules for sources:
//! walls, lengths, SQL.

pub mod commands;
pub mod compose;
pub mod compose_run;
pub mod docs;
pub mod edge_nginx;
pub mod embedding;
pub mod first_steps;
pub mod import_django;
pub mod lengths;
pub mod monitoring;
pub mod nginx;
pub mod nginx_tls;
pub mod sql;
pub mod systemd;
pub mod telemetry;
pub mod walls;
