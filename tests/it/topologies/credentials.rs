use std::time::Duration;

use super::{assert_unavailable, start, until_served};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::Sentinels;
use crate::support::vestibule;

#[tokio::test]
async fn a_changed_password_is_read_again_where_the_url_came_from() {
    let redis = Redis::start().await;
    redis.put_session("ann", &[("user_id", "ann")]).await;
    let with = |password: &str| redis.url().replace("//", &format!("//vestibule:{password}@"));
    let user = |password| ["SETUSER", "vestibule", "on", "resetpass", password, "~*", "+@all"];
    let () = redis.command("ACL", user(">first").as_slice()).await;
    let file = vestibule::write(&format!("{}\n", with("first")));
    let (_upstream, proxy) = start(&format!("file:{}", file.path().display()), "").await;
    until_served(&proxy, "ann", true).await;
    let () = redis.command("ACL", user(">second").as_slice()).await;
    let () = redis.command("CLIENT", ["KILL", "USER", "vestibule"].as_slice()).await;
    until_served(&proxy, "ann", false).await;
    tokio::time::sleep(Duration::from_millis(500)).await; // the old password is tried and refused
    assert_unavailable(&proxy.get("/", &[("Cookie", "session-id=ann")]).await);
    std::fs::write(file.path(), format!("{}\n", with("second"))).unwrap();
    until_served(&proxy, "ann", true).await;
}

#[tokio::test]
async fn sentinels_have_a_password_of_their_own() {
    let sentinels = Sentinels::start().await;
    sentinels.primary().await.put_session("ann", &[("user_id", "ann")]).await;
    sentinels.add_user("vestibule", "hunter2").await;
    let with = async |password: &str| {
        let file = vestibule::write(password);
        let path = file.path().display();
        let keys = format!("sentinel_user = \"vestibule\"\nsentinel_password = \"file:{path}\"\n");
        start(&sentinels.url(), &keys).await
    };
    let (_upstream, refused) = with("wrong").await;
    let (_upstream, accepted) = with("hunter2").await;
    until_served(&accepted, "ann", true).await;
    assert_unavailable(&refused.get("/", &[("Cookie", "session-id=ann")]).await);
}
