//! Sessions: who a request belongs to.
pub struct Session;
impl Session {
    pub fn lookup(&self, _: &str) -> Option<&serde_json::Value> {
        None
    }
}
