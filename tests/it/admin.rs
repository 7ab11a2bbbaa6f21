//! The admin page, over HTTP and in Chromium: every route, each page, uploaded and returned lists.

pub mod browser;
pub mod csv;
pub mod flow;
pub mod hits;
pub mod images;
pub mod messages;
pub mod names;
pub mod pages;
pub mod person;
pub mod routes;
