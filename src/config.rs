//! stub
use std::net::SocketAddr; use std::num::NonZeroU32; use std::path::PathBuf; use std::time::Duration; use ipnet::IpNet;
/// s
#[derive(Clone)]
pub struct Secret(pub String);
impl Secret { pub fn expose(&self)->&str{&self.0} }
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub enum Durability { Written, Synced }
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub enum IpPrivacy { Full, Truncated, None }
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub struct SpoolKeep { pub age: Duration, pub bytes: u64 }
#[derive(Clone)]
pub struct Config { pub listen: SocketAddr, pub admin_listen: SocketAddr, pub base_url: String, pub admin_base_url: String,
    pub data_dir: PathBuf, pub database_url: Option<Secret>, pub pg_bin: Option<PathBuf>, pub sentry_dsn: Option<Secret>,
    pub trusted_proxies: Vec<IpNet>, pub durability: Durability, pub throttle: Option<Duration>, pub address_rate: Option<NonZeroU32>,
    pub ip_privacy: IpPrivacy, pub retention_days: Option<NonZeroU32>, pub spool_bytes_max: u64, pub spool_keep: SpoolKeep,
    pub connections_max: usize, pub threads: usize, pub drain: Duration, pub log: String }
pub const EXIT_CONFIG: u8 = 64;
impl Config { pub fn from_env() -> Result<Config, String> { Err(String::new()) } }
