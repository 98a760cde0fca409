//! Publish, read, and see the three outcomes.
//!
//!     cargo run tls://broker.example:5574 ca.pem ORDERS       with PLANARIA_TOKEN

mod planaria;

use std::env;
use std::process::exit;
use std::time::Duration;

use planaria::{Client, Failure, ATTEMPT, PATIENCE};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, url, authority, topic] = arguments.as_slice() else {
        eprintln!("usage: example tls://HOST:PORT CA.PEM TOPIC");
        exit(2);
    };
    if let Err(error) = run(url, authority, topic).await {
        eprintln!("{error}");
        exit(1);
    }
}

async fn run(url: &str, authority: &str, topic: &str) -> Outcome<()> {
    let client = Client::connect(url, authority, &env::var("PLANARIA_TOKEN")?, "rust-example")?;
    let greeting = client.hello().await?;
    println!("hello {}", greeting["principal"].as_str().unwrap_or("-"));

    let mut offset = end(&client, topic).await?;
    for id in ["rust-1", "rust-2", "rust-2"] {
        let duplicate = client.publish(topic, "k", &format!("order {id}"), id).await?;
        println!("published duplicate={duplicate}");
    }
    let mut count = 0;
    while count < 2 {
        let (records, next) = client.fetch(topic, 0, offset, Duration::from_secs(5)).await?;
        for each in &records {
            let text = |field: &str| each[field].as_str().unwrap_or_default().to_owned();
            println!("consumed {} {}", text("key_text"), text("value_text"));
        }
        count += records.len();
        offset = next;
    }

    let refused = client.ask("delete_topic", json!({"topic": "__offsets"}), ATTEMPT).await;
    if let Err(Failure::Refused { code, retriable, .. }) = refused {
        println!("fail {code} retriable={retriable}");
    }
    let offset = end(&client, topic).await?;
    let late = json!({"topic": topic, "partition": 0, "offset": offset, "max_wait_ms": 30_000});
    if let Err(Failure::Unknown) = client.ask("fetch", late, Duration::from_millis(200)).await {
        println!("unknown");
    }
    Ok(())
}

async fn end(client: &Client, topic: &str) -> Outcome<u64> {
    let fields = json!({"topic": topic, "partition": 0, "at": "latest"});
    let reply = client.repeated("list_offsets", fields, PATIENCE, ATTEMPT).await?;
    Ok(reply["offset"].as_u64().ok_or("no offset")?)
}
