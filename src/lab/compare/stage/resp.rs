//! A minimal Redis client in RESP2, for the comparison's own Redis:
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Timeout of one command, including the connect.
const DEADLINE: Duration = Duration::from_secs(2);
/// Maximum reply in bytes.
const LONGEST: usize = 1 << 20;

/// Sends one command on its own connection. Returns the texts of the reply in order: one, or those of an
/// array.
///
/// # Errors
/// The system's error, or an error reply.
pub(super) async fn command(address: SocketAddr, words: &[&str]) -> io::Result<Vec<String>> {
    timeout(DEADLINE, exchange(address, words)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(address: SocketAddr, words: &[&str]) -> io::Result<Vec<String>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let head = format!("*{}\r\n", words.len());
    let sent = words.iter().fold(head, |text, word| text + &format!("${}\r\n{word}\r\n", word.len()));
    stream.write_all(sent.as_bytes()).await?;
    let mut texts = Vec::new();
    let mut left = 1;
    while left > 0 {
        left -= 1;
        left += read(&mut stream, &mut texts).await?;
    }
    Ok(texts)
}

/// Reads one value. Returns the number of its elements that follow.
async fn read(stream: &mut BufReader<TcpStream>, texts: &mut Vec<String>) -> io::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut characters = line.trim_end().chars();
    let kind = characters.next();
    let rest = characters.as_str();
    match kind {
        Some('+' | ':') => texts.push(rest.to_owned()),
        Some('-') => return Err(io::Error::other(rest.to_owned())),
        Some('*') => return Ok(length(rest)?.unwrap_or_default()),
        Some('$') => {
            if let Some(length) = length(rest)? {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                texts.push(String::from_utf8(bytes).map_err(io::Error::other)?);
            }
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    Ok(0)
}

/// `None` for the length -1, which means null.
fn length(text: &str) -> io::Result<Option<usize>> {
    match text {
        "-1" => Ok(None),
        _ => match text.parse() {
            Ok(length) if length <= LONGEST => Ok(Some(length)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// The parsed result of this reply, and the command that the server received.
    async fn answered(reply: &'static str, words: &[&str]) -> (io::Result<Vec<String>>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 512];
            let length = stream.read(&mut heard).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            String::from_utf8(heard[..length].to_vec()).unwrap()
        });
        (command(address, words).await, server.await.unwrap())
    }

    #[tokio::test]
    async fn texts_and_lists_are_read() {
        let (reply, heard) = answered("*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n", &["SENTINEL", "x"]).await;
        assert_eq!(reply.unwrap(), ["127.0.0.1", "6379"]);
        assert_eq!(heard, "*2\r\n$8\r\nSENTINEL\r\n$1\r\nx\r\n");
        assert_eq!(answered("+OK\r\n", &["SET"]).await.0.unwrap(), ["OK"]);
        assert_eq!(answered("$6\r\na\r\nb\r\n\r\n", &["INFO"]).await.0.unwrap(), ["a\r\nb\r\n"]);
        assert_eq!(answered("*-1\r\n", &["x"]).await.0.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn an_error_and_nonsense_are_errors() {
        assert_eq!(answered("-ERR no\r\n", &["x"]).await.0.unwrap_err().to_string(), "ERR no");
        for reply in ["", "what\r\n", "$x\r\n", "$99999999\r\n", "$5\r\nab"] {
            assert!(answered(reply, &["x"]).await.0.is_err(), "{reply:?}");
        }
    }
}
