//! stub
use uuid::Uuid; use crate::db::Database;
pub struct Row { pub id: Uuid, pub deleted_at: Option<time::OffsetDateTime>, pub media_type: String, pub width: i32, pub height: i32, pub length: i32, pub title: String }
pub async fn list(_:&Database)->anyhow::Result<Vec<Row>>{loop{}}
