//! PostgreSQL in all its forms: private, external, another installation's, an older schema, five years of days, a restored one.

pub mod backup;
pub mod days;
pub mod embedded;
pub mod external;
pub mod installation;
pub mod tls;
pub mod upgrade;
pub mod which;
