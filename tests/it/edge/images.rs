//! Images: added, changed and deleted while nodes serve them, and while the database is down.

use std::time::Duration;

use pixeld_testkit::process::wait_until;
use uuid::Uuid;

use crate::kit::proxy::Proxy;
use crate::kit::support::{App, PATIENCE, Postgres, add_image, beside};
use pixeld_core::ids::ImageId;

/// How long a change may take to take effect everywhere: less than the minute after which all images are read again,
/// which would hide broken notifications and heartbeats.
const SOON: Duration = Duration::from_secs(30);

fn delete(app: &App, image: ImageId, notify: bool) {
    app.query(&format!("UPDATE images SET deleted_at = now(), updated_at = clock_timestamp() WHERE id = '{image}'"));
    if notify {
        app.query(&format!("SELECT pg_notify('pixeld_images', '{image}')"));
    }
}

fn is_deleted(app: &App, image: ImageId) -> bool {
    app.get(&format!("/image/{image}.png")).body == pixeld_edge::images::TRANSPARENT_GIF
}

#[test]
fn an_image_is_served_soon_after_its_adding_and_gone_soon_after_its_deletion() {
    let _machine = beside();
    let app = App::start();
    let image = add_image(app.server.settings());
    wait_until("the image", SOON, || app.get(&format!("/image/{image}.png")).status == 200).unwrap();
    assert!(!is_deleted(&app, image));
    delete(&app, image, true);
    wait_until("the deletion", SOON, || is_deleted(&app, image)).unwrap();
    // Without a notification, as on a half-open connection, the heartbeat notices it.
    delete(&app, app.image, false);
    wait_until("the deletion without a notice", SOON, || is_deleted(&app, app.image)).unwrap();
    app.at_rest();
}

#[test]
fn changes_are_seen_after_the_listening_connection_was_ended_or_went_silent() {
    let _machine = beside();
    let postgres = Postgres::start().unwrap();
    let proxy = Proxy::start(postgres.socket());
    let app = App::start_on(postgres, |_, settings| settings.with("DATABASE_URL", proxy.url()));
    let second = add_image(app.server.settings());
    app.wait_for_image(second);
    app.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pixeld-images'");
    delete(&app, app.image, true);
    wait_until("the deletion after the end of a connection", SOON, || is_deleted(&app, app.image)).unwrap();
    // Half open: no side learns that the connection is gone. The heartbeat's own time-out notices.
    proxy.freeze_open_connections();
    delete(&app, second, true);
    wait_until("the deletion behind a half-open connection", SOON, || is_deleted(&app, second)).unwrap();
    app.at_rest();
}

#[test]
fn without_its_database_a_node_serves_records_and_knows_which_images_exist() {
    let _machine = beside();
    let mut app = App::start();
    let (message, cached, uncached) = (Uuid::new_v4(), app.image, add_image(app.server.settings()));
    app.wait_for_image(uncached);
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    // A start without the database: ids come from disk, bytes from nowhere, so the transparent GIF is served.
    app.restart();
    for image in [cached, uncached] {
        let answer = app.get(&format!("/image/{image}_{message}_{}.png", Uuid::new_v4()));
        assert_eq!((answer.status, answer.body.as_slice()), (200, pixeld_edge::images::TRANSPARENT_GIF.as_slice()));
    }
    let unknown = app.get(&format!("/image/{}_{message}_{}.png", Uuid::new_v4(), Uuid::new_v4()));
    assert_eq!(unknown.status, 404);
    let ready = pixeld_testkit::server::get(app.server.settings().admin(), "/readyz").unwrap();
    assert_eq!(ready.status, 503, "{}", String::from_utf8_lossy(&ready.body));
    assert_eq!(app.get("/healthz").status, 200);
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_requests_total{outcome=\"fallback\"}"), 2.0);
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 2);
    wait_until("the image's own bytes", PATIENCE, || !is_deleted(&app, cached)).unwrap();
}

#[test]
fn an_image_that_only_a_request_made_known_is_known_after_a_restart_without_the_database() {
    let _machine = beside();
    let mut app = App::start();
    let image = Uuid::new_v4();
    // Older than the heartbeat's window, and without a notification: only a look-up finds it.
    app.query(&format!(
        "INSERT INTO images (id, title, media_type, width, height, bytes, sha256, created_at, updated_at) \
         SELECT '{image}', title, media_type, width, height, bytes, sha256, now() - interval '1 hour', now() - interval '1 hour' \
         FROM images WHERE id = '{}'",
        app.image
    ));
    let served = app.get(&format!("/image/{image}.png"));
    assert!(served.status == 200 && served.body != pixeld_edge::images::TRANSPARENT_GIF, "{}", served.status);
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    app.restart();
    assert_eq!(app.get(&format!("/image/{image}.png")).status, 200);
    app.postgres.start_again().unwrap();
    app.at_rest();
}

#[test]
fn a_node_that_never_had_the_list_records_and_the_loader_decides() {
    let _machine = beside();
    let mut app = App::start();
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    std::fs::remove_dir_all(app.server.data_dir().join("images")).unwrap();
    app.restart();
    let (message, unknown) = (Uuid::new_v4(), ImageId::random());
    for image in [app.image, unknown, unknown] {
        assert_eq!(app.get(&format!("/image/{image}_{message}_{}.png", Uuid::new_v4())).status, 200);
    }
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    assert_eq!((metrics.get("pixeld_hits_accepted_total"), metrics.dropped("unknown_image")), (3.0, 2.0));
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 1);
    assert_eq!(app.number("SELECT sum(unknown_image) FROM batches"), 2);
    wait_until("the list", PATIENCE, || {
        app.get(&format!("/image/{unknown}_{message}_{}.png", Uuid::new_v4())).status == 404
    })
    .unwrap();
}

#[test]
fn hits_of_an_image_that_was_deleted_while_they_waited_are_kept() {
    let _machine = beside();
    let mut app = App::start();
    let message = Uuid::new_v4();
    let path = || format!("/image/{}_{message}_{}.png", app.image, Uuid::new_v4());
    // The edge stops recording with the deletion; the loader reads the hits later.
    app.query("ALTER TABLE spool_marks RENAME TO away");
    for _ in 0..3 {
        assert_eq!(app.get(&path()).status, 200);
    }
    delete(&app, app.image, true);
    wait_until("the deletion", SOON, || is_deleted(&app, app.image)).unwrap();
    app.server.kill().unwrap();
    app.restart();
    app.query("ALTER TABLE away RENAME TO spool_marks");
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 3);
}
