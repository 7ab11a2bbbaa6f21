//! What the tests share: a PostgreSQL and a pixeld for each test, rows, visitors, snapshots, a proxy that cuts and
//! freezes, Chromium.

pub mod holder;
pub mod proxy;
pub mod rows;
pub mod snapshot;
pub mod support;
pub mod visitor;
pub mod webdriver;
