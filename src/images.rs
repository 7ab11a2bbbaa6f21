//! stub
use std::sync::Arc; use bytes::Bytes; use hyper::header::{HeaderMap,HeaderValue}; use uuid::Uuid; use std::path::Path;
#[derive(Debug)] pub struct Image { pub bytes: Bytes, pub etag: HeaderValue, pub headers: HeaderMap, pub not_modified_headers: HeaderMap }
#[derive(Debug)] pub struct ImageCache;
pub enum Lookup { Cached(Arc<Image>), NotCached, Deleted, Unknown, NoList }
pub enum Fetched { Cached(Arc<Image>), Deleted, Unknown, TimedOut }
pub fn transparent_gif() -> Arc<Image> { loop {} }
pub struct Wanted;
impl ImageCache { pub fn new(_:usize,_:&Path)->(Arc<ImageCache>,Wanted){loop{}} pub fn lookup(&self,_:Uuid)->Lookup{loop{}} pub async fn fetch(&self,_:Uuid)->Fetched{loop{}} pub fn bytes(&self)->usize{0} }
pub mod sync { use super::*; use std::path::PathBuf; use crate::db::Database; pub async fn run(_:Arc<ImageCache>,_:Wanted,_:Database,_:PathBuf,_:impl Future<Output=()>){} }
pub mod upload { use crate::db::Database; use uuid::Uuid; pub const BYTES_MAX: usize=1; pub fn inspect(_:&[u8])->anyhow::Result<()>{Ok(())} pub async fn add(_:&Database,_:Vec<u8>,_:Option<Uuid>,_:Option<&str>)->anyhow::Result<Uuid>{loop{}} }
