//! PostgreSQL in all its forms: private, external, another installation's, an older schema, five years of days, a restored one, its values in our types.

pub mod backup;
pub mod days;
pub mod embedded;
pub mod external;
pub mod installation;
pub mod tls;
pub mod upgrade;
pub mod values;
pub mod which;
