//! The pages, one file each. A page takes what it is asked ([`super::asked::Asked`]), asks the database, and makes an answer.

pub mod opt_out;
pub mod overview;
pub mod refused;
pub mod settings;
pub mod sign_in;
