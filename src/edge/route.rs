//! stub
use uuid::Uuid;
pub enum Ids { Named{message:Uuid,recipient:Uuid}, Malformed }
pub enum Route { Pixel{image:Uuid,ids:Ids}, NotAnImage, Health, NotFound }
pub fn route(_:&str)->Route{loop{}}
