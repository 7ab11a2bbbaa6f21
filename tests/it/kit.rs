//! What the tests share: a PostgreSQL and a pixeld of each test's own, rows, visitors, a proxy that cuts and freezes, Chromium.

pub mod holder;
pub mod proxy;
pub mod rows;
pub mod support;
pub mod visitor;
pub mod webdriver;
