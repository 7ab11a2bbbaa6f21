//! The pages, one file each. A page takes its request ([`super::request::PageRequest`]), asks the database, and makes an
//! answer.

pub(crate) mod audit;
pub(crate) mod delete_hits;
pub(crate) mod erasures;
pub(crate) mod hits;
pub(crate) mod image;
mod image_parts;
pub(crate) mod images;
mod list_form;
pub(crate) mod make_links;
pub(crate) mod message;
mod message_chart;
mod message_form;
pub(crate) mod messages;
pub(crate) mod not_recorded;
pub(crate) mod opt_out;
pub(crate) mod overview;
pub(crate) mod person;
pub(crate) mod recipients;
pub(crate) mod refused;
pub(crate) mod settings;
pub(crate) mod sign_in;
pub(crate) mod who_opened;
