//! A server that answers but refuses: each reason is told apart and none is a logout.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use vestibule::config::{self, ClientCertificate};
use vestibule::session::{MemoryStore, StartError, Store, StoreError, TombstoneReason};

use super::{connected, fields, hash, id, redis_with_session, start, until_failed, until_loaded};
use crate::support::redis::Redis;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_wrong_password_is_an_auth_error_and_the_right_one_works() {
    let redis = redis_with_session().await;
    let () = redis.command("CONFIG", ["SET", "requirepass", "right"].as_slice()).await;
    until_failed(&start(&hash(&redis.url())), StoreError::Auth).await;
    until_failed(&start(&hash(&redis.url().replace("//", "//:wrong@"))), StoreError::Auth).await;
    until_loaded(&start(&hash(&redis.url().replace("//", "//:right@"))), "there").await;
}

#[tokio::test]
async fn a_user_needs_only_the_rights_for_what_is_used() {
    let redis = redis_with_session().await;
    let rule = [
        "SETUSER",
        "reader",
        "on",
        ">pass",
        "~session:*",
        "~vestibule:*",
        "+ping",
        "+get",
        "+hgetall",
        "+pttl",
    ];
    let () = redis.command("ACL", &rule[..]).await;
    let store = connected(&hash(&redis.url().replace("//", "//reader:pass@"))).await;
    assert!(store.load(&id("there"), true).await.unwrap().found().is_some());
    store.ping().await.unwrap();
    assert_eq!(store.create(&id("new"), fields("1"), HOUR).await, Err(StoreError::Auth));
    assert_eq!(
        store.write_tombstone(&id("there"), TombstoneReason::Revoked, HOUR).await,
        Err(StoreError::Auth)
    );
}

#[tokio::test]
async fn a_server_that_was_made_a_replica_is_neither_written_nor_read() {
    let redis = redis_with_session().await;
    let store = connected(&hash(&redis.url())).await;
    let () = redis.command("REPLICAOF", ("127.0.0.1", "1")).await;
    let read = store.load(&id("there"), true).await;
    assert!(matches!(read, Err(StoreError::ReadOnly | StoreError::PrimaryDown)), "{read:?}");
    until_failed(&store, StoreError::PrimaryDown).await;
    assert_eq!(store.create(&id("new"), fields("1"), HOUR).await, Err(StoreError::PrimaryDown));
    let () = redis.command("REPLICAOF", ("NO", "ONE")).await;
    until_loaded(&store, "there").await;
    store.create(&id("new"), fields("1"), HOUR).await.unwrap();
}

#[tokio::test]
async fn a_full_server_refuses_new_sessions_and_serves_old_ones() {
    let redis = redis_with_session().await;
    let store = connected(&hash(&redis.url())).await;
    let () = redis.command("CONFIG", ["SET", "maxmemory", "1"].as_slice()).await;
    let created = store.create(&id("new"), fields("1"), HOUR).await;
    assert_eq!(created, Err(StoreError::OutOfMemory));
    assert!(store.load(&id("there"), true).await.unwrap().found().is_some());
    assert!(store.write_tombstone(&id("there"), TombstoneReason::Revoked, HOUR).await.unwrap().was_there);
}

#[tokio::test]
async fn a_server_without_room_for_us_says_so() {
    let redis = redis_with_session().await;
    let mut kept = redis.connect().await;
    let mut room = async |clients: &str| {
        let set = redis::cmd("CONFIG").arg(&["SET", "maxclients", clients]).to_owned();
        let () = set.query_async(&mut kept).await.unwrap();
    };
    room("1").await;
    let store = start(&hash(&redis.url()));
    until_failed(&store, StoreError::MaxClients).await;
    room("100").await;
    until_loaded(&store, "there").await;
}

/// An authority and a certificate of it for 127.0.0.1, as PEM files.
struct Tls {
    directory: tempfile::TempDir,
}

impl Tls {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        // A certificate whose subject is its issuer passes for self-signed.
        params.distinguished_name.push(DnType::CommonName, "redis");
        let server = params.signed_by(&key, &ca).unwrap();
        let tls = Tls { directory: tempfile::tempdir().unwrap() };
        std::fs::write(tls.path("ca.pem"), ca.pem()).unwrap();
        std::fs::write(tls.path("server.pem"), server.pem()).unwrap();
        std::fs::write(tls.path("server.key"), key.serialize_pem()).unwrap();
        tls
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().unwrap()
    }

    /// Opens a TLS port on `redis`; its URL.
    async fn serve(&self, redis: &Redis) -> String {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = [
            "SET",
            "tls-cert-file",
            &self.text("server.pem"),
            "tls-key-file",
            &self.text("server.key"),
            "tls-ca-cert-file",
            &self.text("ca.pem"),
            "tls-auth-clients",
            "no",
            "tls-port",
            &port.to_string(),
        ];
        let () = redis.command("CONFIG", &settings[..]).await;
        format!("rediss://127.0.0.1:{port}/0")
    }
}

fn trusting(url: &str, ca: PathBuf) -> config::Store {
    config::Store { ca: Some(ca), ..hash(url) }
}

#[tokio::test]
async fn over_tls_only_a_server_of_the_configured_authority_is_trusted() {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let redis = redis_with_session().await;
    let (tls, stranger) = (Tls::new(), Tls::new());
    let url = tls.serve(&redis).await;
    let store = connected(&trusting(&url, tls.path("ca.pem"))).await;
    assert!(store.load(&id("there"), true).await.unwrap().found().is_some());
    until_failed(&start(&trusting(&url, stranger.path("ca.pem"))), StoreError::Tls).await;
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_ours() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let redis = redis_with_session().await;
    let tls = Tls::new();
    let url = tls.serve(&redis).await;
    let () = redis.command("CONFIG", ["SET", "tls-auth-clients", "yes"].as_slice()).await;
    let nobody = trusting(&url, tls.path("ca.pem"));
    let files = |key: &str| {
        let files = ClientCertificate { certificate: tls.path("server.pem"), private_key: tls.path(key) };
        config::Store { certificate: Some(files), ..nobody.clone() }
    };
    until_loaded(&start(&files("server.key")), "there").await;
    let refused = start(&nobody);
    tokio::time::sleep(Duration::from_millis(300)).await; // a few attempts
    assert!(refused.load(&id("there"), false).await.is_err());
    let unusable = Store::start(&files("ca.pem"), &MemoryStore::new()).unwrap_err();
    assert!(matches!(unusable, StartError::Certificate { .. }), "{unusable}");
}

#[tokio::test]
async fn a_store_that_can_never_work_does_not_start_and_does_not_show_its_url() {
    let refused = |config: &config::Store| Store::start(config, &MemoryStore::new()).unwrap_err();
    let tls = Tls::new();
    let missing = refused(&trusting("rediss://:secret@localhost/0", tls.path("missing.pem")));
    assert!(matches!(missing, StartError::ReadPem { .. }));
    let in_clear = refused(&trusting("redis://:secret@localhost/0", tls.path("ca.pem")));
    assert!(matches!(in_clear, StartError::Ca { .. }));
    for error in [missing, in_clear] {
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
}
