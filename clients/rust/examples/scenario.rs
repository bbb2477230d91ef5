//! What the clients of all languages do, printed line by line; the transcripts are compared byte for byte. Doubles are
//! printed as their bits and codes as numbers, so that nothing can be rounded or re-spelled.

use std::{env, error::Error};

use soma::{
    Connection, Identity, Import,
    stubs::soma::{
        batch::v1::{
            CreateImportRequest, ImportConflict, ListImportErrorsRequest, Record,
            batch_service_client::BatchServiceClient, record,
        },
        common::v1::{
            Coordinate, FloatValues, MemoryTarget, NamespacedKey, Provenance, Vector, memory_target::Target,
            vector::Encoding,
        },
        graph::v1::{
            Direction, LinkRequest, NeighborsRequest, graph_service_client::GraphServiceClient, neighbors_response,
        },
        memory::v1::{
            ForgetRequest, GetRequest, Kind, ListOrder, ListRequest, Memory, MemoryView, RecallRequest,
            RememberRequest, RememberResponse, memory_service_client::MemoryServiceClient, recall_request,
            recall_response,
        },
    },
};
use tonic::{Status, transport::Endpoint};
use tonic_types::StatusExt;

const ADA: &str = "polyglot.ada";
const TRAIN: &str = "polyglot.train";
const GARDEN: &str = "polyglot.garden";
const VECTOR: &str = "polyglot.vector";
const ROSES: &str = "Roses in the garden need water every second day";
const RECORDS: usize = 300;
const REFUSED: usize = 150;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

struct Scenario {
    memories: MemoryServiceClient<Connection>,
    graph: GraphServiceClient<Connection>,
    batch: BatchServiceClient<Connection>,
    through: BatchServiceClient<Connection>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let identity = Identity::new(&env::var("SOMA_KEY")?)?.tenant(&env::var("SOMA_TENANT")?)?;
    let channel = endpoint("SOMA_TARGET")?.connect_lazy();
    let breaking = endpoint("SOMA_IMPORT_TARGET")?.connect_lazy();
    let mut scenario = Scenario {
        memories: MemoryServiceClient::with_interceptor(channel.clone(), identity.clone()),
        graph: GraphServiceClient::with_interceptor(channel.clone(), identity.clone()),
        batch: BatchServiceClient::with_interceptor(channel, identity.clone()),
        through: BatchServiceClient::with_interceptor(breaking, identity),
    };
    scenario.remembering().await?;
    scenario.embedding().await?;
    scenario.recalling().await?;
    scenario.linking().await?;
    scenario.importing().await?;
    scenario.refusing(&env::var("SOMA_FOREIGN_TENANT")?).await
}

fn endpoint(variable: &str) -> Outcome<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{}", env::var(variable)?))?)
}

impl Scenario {
    // --- remember and read

    async fn remembering(&mut self) -> Outcome {
        let memory = Memory {
            key: ADA.into(),
            kind: Kind::Semantic.into(),
            schema_type: "UserPreference".into(),
            text: "Ada prefers tea – 茶 – over coffee ☕".into(),
            payload_json: r#"{"exact":9007199254740993,"ratio":5.0,"negative":-0.0,"quoted":"\"\u00e9\""}"#.into(),
            tags: vec!["taste".into(), "drink".into()],
            actor: "Ada".into(),
            session_id: "s-1".into(),
            sequence: Some(9007199254740993),
            provenance: Some(Provenance { author: "Ada".into(), source: "chat".into(), confidence: Some(0.7) }),
            importance: Some(0.1),
            relevance: Some(0.3),
            occurred_time: Some(prost_types::Timestamp { seconds: 1772323199, nanos: 123456000 }),
            ..Default::default()
        };
        for name in ["remember", "again"] {
            let stored = self.remember(memory.clone()).await?;
            let kept = stored.memory.clone().unwrap_or_default();
            say(&format!("{name}.memory_id"), kept.memory_id);
            say(&format!("{name}.durability"), stored.durability().as_str_name());
            say(&format!("{name}.created"), stored.created);
            say(&format!("{name}.version"), kept.version);
        }
        let got = self.full(ADA).await?;
        let from = got.provenance.clone().unwrap_or_default();
        let occurred = got.occurred_time.unwrap_or_default();
        let Coordinate { values } = got.coordinate.clone().unwrap_or_default();
        say("get.kind", got.kind().as_str_name());
        say("get.schema_type", &got.schema_type);
        say("get.text", &got.text);
        say("get.payload_json", &got.payload_json);
        say("get.tags", got.tags.join("|"));
        say("get.actor", &got.actor);
        say("get.session_id", &got.session_id);
        say("get.sequence", got.sequence());
        say("get.provenance", format!("{}|{}|{}", from.author, from.source, bits(from.confidence())));
        say("get.importance", bits(got.importance()));
        say("get.relevance", bits(got.relevance()));
        say("get.occurred_time", format!("{}.{:09}", occurred.seconds, occurred.nanos));
        say("get.coordinate", values.into_iter().map(bits).collect::<Vec<_>>().join("|"));
        Ok(())
    }

    async fn embedding(&mut self) -> Outcome {
        let mut values = vec![0.0; 384];
        for (place, value) in [(0, 0.5), (1, -0.5), (200, 0.5), (383, -0.5)] {
            values[place] = value;
        }
        let given = Vector { encoding: Some(Encoding::Values(FloatValues { values })) };
        let text = "A vector of the client's own".into();
        self.remember(Memory { key: VECTOR.into(), text, embedding: Some(given), ..Default::default() }).await?;
        let found = self.full(VECTOR).await?.embedding.and_then(|vector| vector.encoding);
        let Some(Encoding::PackedF32(packed)) = found else { return Err("no packed vector".into()) };
        say("vector.dimension", packed.len() / 4);
        say("vector.starts", hex(&packed[..12]));
        say("vector.ends", hex(&packed[packed.len() - 8..]));
        Ok(())
    }

    async fn remember(&mut self, memory: Memory) -> Result<RememberResponse, Status> {
        let request = RememberRequest { memory: Some(memory), ..Default::default() };
        Ok(self.memories.remember(request).await?.into_inner())
    }

    async fn full(&mut self, key: &str) -> Result<Memory, Status> {
        let view = MemoryView::Full.into();
        let request = GetRequest { target: Some(named(key)), view, ..Default::default() };
        Ok(self.memories.get(request).await?.into_inner().memory.unwrap_or_default())
    }

    // --- recall

    async fn recalling(&mut self) -> Outcome {
        for (key, text) in [(TRAIN, "The night train to Vienna leaves from platform nine"), (GARDEN, ROSES)] {
            self.remember(Memory { key: key.into(), text: text.into(), ..Default::default() }).await?;
        }
        let query = recall_request::Query::Text("which platform does the night train leave from?".into());
        let request = RecallRequest { query: Some(query), limit: 10, ..Default::default() };
        let mut frames = self.memories.recall(request).await?.into_inner();
        let (mut keys, mut legs, mut ends_with_summary) = (Vec::new(), Vec::new(), false);
        while let Some(response) = frames.message().await? {
            ends_with_summary = false;
            match response.frame {
                Some(recall_response::Frame::Hit(hit)) => keys.push(hit.memory.unwrap_or_default().key),
                Some(recall_response::Frame::Summary(summary)) => {
                    ends_with_summary = true;
                    legs.extend(summary.legs.iter().map(|leg| leg.leg().as_str_name().replace("RECALL_LEG_", "")));
                }
                // Another release may send other frames.
                _ => {}
            }
        }
        say("recall.best", &keys[0]);
        keys.sort();
        legs.sort();
        say("recall.keys", keys.join("|"));
        say("recall.ends_with_summary", ends_with_summary);
        say("recall.legs", legs.join("|"));
        Ok(())
    }

    // --- links

    async fn linking(&mut self) -> Outcome {
        for (source, target, strength) in [(ADA, TRAIN, 0.8), (TRAIN, GARDEN, 0.3)] {
            let request = LinkRequest {
                source: Some(named(source)),
                target: Some(named(target)),
                relation: "references".into(),
                strength: Some(strength),
                metadata_json: r#"{"n":9007199254740993}"#.into(),
                ..Default::default()
            };
            let linked = self.graph.link(request).await?.into_inner();
            let link = linked.link.unwrap_or_default();
            say("link.created", linked.created);
            say("link.version", link.version);
            say("link.strength", bits(link.strength));
            say("link.metadata_json", link.metadata_json);
        }
        let request = NeighborsRequest {
            target: Some(named(ADA)),
            k_hop: 2,
            direction: Direction::Outgoing.into(),
            include_memories: true,
            ..Default::default()
        };
        let mut frames = self.graph.neighbors(request).await?.into_inner();
        while let Some(response) = frames.message().await? {
            match response.frame {
                Some(neighbors_response::Frame::Neighbors(list)) => {
                    for near in list.neighbors {
                        let key = near.memory.unwrap_or_default().key;
                        let relation = near.via.unwrap_or_default().relation;
                        say("neighbour", format!("{key}|{}|{}|{relation}", near.depth, bits(near.strength)));
                    }
                }
                Some(neighbors_response::Frame::Summary(summary)) => say("neighbours.partial", summary.partial),
                // Another release may send other frames.
                _ => {}
            }
        }
        let nowhere = LinkRequest {
            source: Some(named(ADA)),
            target: Some(named("polyglot.nobody")),
            relation: "references".into(),
            ..Default::default()
        };
        refused("link_to_nobody", self.graph.link(nowhere).await);
        Ok(())
    }

    // --- import

    async fn importing(&mut self) -> Outcome {
        let on_conflict = ImportConflict::Fail.into();
        let request = CreateImportRequest { on_conflict, label: "polyglot".into(), ..Default::default() };
        let import_id = self.batch.create_import(request).await?.into_inner().job.unwrap_or_default().import_id;
        let mut sending = Import::new(self.through.clone(), &import_id, (0..RECORDS).map(line), 20);
        let done = sending.run().await?;
        say("import.cut_and_resumed", sending.connections > 1);
        say("import.state", done.state().as_str_name());
        say("import.total", done.total);
        say("import.stored", done.stored);
        say("import.refused", done.refused);
        let request = ListImportErrorsRequest { import_id, ..Default::default() };
        for record in self.batch.list_import_errors(request).await?.into_inner().refused {
            let error = record.error.unwrap_or_default();
            let paths: Vec<_> = error.violations.iter().map(|violation| violation.field_path.as_str()).collect();
            let (code, reason) = (error.code, error.reason().as_str_name());
            say("import.error", format!("{}|{code}|{reason}|{}", record.offset, paths.join("|")));
        }
        let mut keys = Vec::new();
        let order = ListOrder::Key.into();
        let mut request = ListRequest { key_prefix: "import.".into(), order, page_size: 70, ..Default::default() };
        loop {
            let page = self.memories.list(request.clone()).await?.into_inner();
            keys.extend(page.memories.into_iter().map(|memory| memory.key));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        say("import.listed", format!("{}|{}|{}", keys.len(), keys[0], keys[keys.len() - 1]));
        Ok(())
    }

    // --- refusals

    async fn refusing(&mut self, foreign_tenant: &str) -> Outcome {
        let tags = vec!["same".into(), "same".into()];
        let bad = Memory { text: "x".into(), relevance: Some(2.0), tags, ..Default::default() };
        refused("bad_fields", self.remember(bad).await);
        refused("no_such_key", self.full("polyglot.nobody").await);
        let memory = Some(Memory { key: GARDEN.into(), text: ROSES.into(), ..Default::default() });
        let conditional = RememberRequest { memory, if_match: Some(7), ..Default::default() };
        refused("wrong_version", self.memories.remember(conditional).await);
        let (key, tenant) = (env::var("SOMA_KEY")?, env::var("SOMA_TENANT")?);
        refused("foreign_tenant", asked(Identity::new(&key)?.tenant(foreign_tenant)?).await?);
        refused("wrong_key", asked(Identity::new("soma_0000000000000000_wrong")?.tenant(&tenant)?).await?);
        let request = ForgetRequest { target: Some(named(GARDEN)), ..Default::default() };
        let forgotten = self.memories.forget(request).await?.into_inner();
        say("forget.durability", forgotten.durability().as_str_name());
        refused("forgotten", self.full(GARDEN).await);
        Ok(())
    }
}

/// One line of the book; one of them may not be stored.
fn line(number: usize) -> Record {
    let memory = Memory {
        key: format!("import.{number:03}"),
        text: format!("Line {number:03} of a long book, {}", "and so on ".repeat(80)),
        relevance: (number == REFUSED).then_some(1.5),
        ..Default::default()
    };
    Record { record: Some(record::Record::Memory(memory)) }
}

/// Gets a memory as somebody else.
async fn asked(identity: Identity) -> Outcome<Result<(), Status>> {
    let mut client = MemoryServiceClient::with_interceptor(endpoint("SOMA_TARGET")?.connect_lazy(), identity);
    Ok(client.get(GetRequest { target: Some(named(ADA)), ..Default::default() }).await.map(|_| ()))
}

fn refused<T>(name: &str, outcome: Result<T, Status>) {
    let Err(status) = outcome else { return say(&format!("{name}.code"), 0) };
    say(&format!("{name}.code"), i32::from(status.code()));
    if let Some(info) = status.get_details_error_info() {
        say(&format!("{name}.reason"), info.reason);
        let mut metadata: Vec<_> = info.metadata.into_iter().collect();
        metadata.sort();
        for (key, value) in metadata {
            say(&format!("{name}.metadata.{key}"), value);
        }
    }
    for violation in status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default() {
        say(&format!("{name}.field"), format!("{}: {}", violation.field, violation.description));
    }
}

// --- words

fn say(name: &str, value: impl std::fmt::Display) {
    println!("{name}: {value}");
}

fn bits(number: f64) -> String {
    format!("{:016x}", number.to_bits())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(key: &str) -> MemoryTarget {
    MemoryTarget { target: Some(Target::Key(NamespacedKey { key: key.into(), ..Default::default() })) }
}
