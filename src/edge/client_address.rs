//! stub
use std::net::IpAddr; use ipnet::IpNet; use crate::config::IpPrivacy;
pub struct ClientAddress{pub address:IpAddr,pub untrusted_forwarded:bool}
pub fn client_address<'a>(_:IpAddr,_:impl DoubleEndedIterator<Item=&'a [u8]>,_:&[IpNet])->ClientAddress{loop{}}
pub fn kept(a:IpAddr,_:IpPrivacy)->Option<IpAddr>{Some(a)}
