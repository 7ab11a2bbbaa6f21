//! The pages, one file each. A page takes its request ([`super::request::PageRequest`]), asks the database, and makes an
//! answer.

pub mod audit;
pub mod delete_hits;
pub mod erasures;
pub mod hits;
pub mod image;
mod image_parts;
pub mod images;
mod list_form;
pub mod make_links;
pub mod message;
mod message_chart;
mod message_form;
pub mod messages;
pub mod not_recorded;
pub mod opt_out;
pub mod overview;
pub mod person;
pub mod recipients;
pub mod refused;
pub mod settings;
pub mod sign_in;
pub mod who_opened;
