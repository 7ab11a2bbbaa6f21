//! What the tests share: a PostgreSQL and a pixeld of each test's own, a proxy that cuts and freezes, Chromium.

pub mod proxy;
pub mod support;
pub mod webdriver;
