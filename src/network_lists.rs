//! The lists that say to which provider's network an address belongs: built in, in a folder, and published by the
//! providers.
//!
//! [`files`] reads them, [`update`] fetches them, and [`follow`] does both while pixeld runs. The look-up is [`pixeld_core::networks`].

pub mod files;
pub(crate) mod follow;
pub(crate) mod update;
