// What the clients of all languages do, printed line by line; the transcripts are compared byte for byte. Doubles are
// printed as their bits and codes as numbers, so that nothing can be rounded or re-spelled.
import { ChannelCredentials, type ServiceError } from "@grpc/grpc-js";
import {
  BatchServiceClient,
  CreateImportRequest,
  type CreateImportResponse,
  ImportConflict,
  ImportState,
  ListImportErrorsRequest,
  type ListImportErrorsResponse,
  Record,
} from "../gen/soma/batch/v1/batch_service.js";
import { ErrorReason } from "../gen/soma/common/v1/errors.js";
import { Durability, type MemoryTarget } from "../gen/soma/common/v1/types.js";
import {
  Direction,
  GraphServiceClient,
  LinkRequest,
  type LinkResponse,
  NeighborsRequest,
  type NeighborsResponse,
} from "../gen/soma/graph/v1/graph_service.js";
import { Kind, Memory, MemoryView } from "../gen/soma/memory/v1/memory.js";
import {
  ForgetRequest,
  type ForgetResponse,
  GetRequest,
  type GetResponse,
  ListOrder,
  ListRequest,
  type ListResponse,
  MemoryServiceClient,
  RecallLeg,
  RecallRequest,
  type RecallResponse,
  RememberRequest,
  type RememberResponse,
} from "../gen/soma/memory/v1/memory_service.js";
import { calledBy, Import, refusalOf } from "./index.js";

const [ADA, TRAIN, GARDEN, VECTOR] = ["polyglot.ada", "polyglot.train", "polyglot.garden", "polyglot.vector"];
const ROSES = "Roses in the garden need water every second day";
const RECORDS = 300;
const REFUSED = 150;

const environment = (name: string): string => process.env[name] ?? "";
const identity = { key: environment("SOMA_KEY"), tenant: environment("SOMA_TENANT") };
const plaintext = ChannelCredentials.createInsecure();
const target = environment("SOMA_TARGET");
const options = { interceptors: [calledBy(identity)] };

const memories = new MemoryServiceClient(target, plaintext, options);
const graph = new GraphServiceClient(target, plaintext, options);
const batch = new BatchServiceClient(target, plaintext, options);
const through = new BatchServiceClient(environment("SOMA_IMPORT_TARGET"), plaintext, options);

// --- remember and read

async function remembering(): Promise<void> {
  const memory = Memory.fromPartial({
    key: ADA,
    kind: Kind.KIND_SEMANTIC,
    schemaType: "UserPreference",
    text: "Ada prefers tea – 茶 – over coffee ☕",
    payloadJson: String.raw`{"exact":9007199254740993,"ratio":5.0,"negative":-0.0,"quoted":"\"\u00e9\""}`,
    tags: ["taste", "drink"],
    actor: "Ada",
    sessionId: "s-1",
    sequence: 9007199254740993n,
    provenance: { author: "Ada", source: "chat", confidence: 0.7 },
    importance: 0.1,
    relevance: 0.3,
    occurredTime: { seconds: 1772323199n, nanos: 123456000 },
  });
  for (const name of ["remember", "again"]) {
    const stored = await remember(memory);
    say(`${name}.memory_id`, stored.memory?.memoryId);
    say(`${name}.durability`, Durability[stored.durability]);
    say(`${name}.created`, stored.created);
    say(`${name}.version`, stored.memory?.version);
  }
  const got = await full(ADA);
  say("get.kind", Kind[got.kind]);
  say("get.schema_type", got.schemaType);
  say("get.text", got.text);
  say("get.payload_json", got.payloadJson);
  say("get.tags", got.tags.join("|"));
  say("get.actor", got.actor);
  say("get.session_id", got.sessionId);
  say("get.sequence", got.sequence);
  say("get.provenance", `${got.provenance?.author}|${got.provenance?.source}|${bits(got.provenance?.confidence)}`);
  say("get.importance", bits(got.importance));
  say("get.relevance", bits(got.relevance));
  say("get.occurred_time", `${got.occurredTime?.seconds}.${String(got.occurredTime?.nanos).padStart(9, "0")}`);
  say("get.coordinate", got.coordinate?.values.map(bits).join("|"));
}

async function embedding(): Promise<void> {
  const values = new Array<number>(384).fill(0);
  [values[0], values[1], values[200], values[383]] = [0.5, -0.5, 0.5, -0.5];
  const given = { encoding: { $case: "values" as const, value: { values } } };
  await remember(Memory.fromPartial({ key: VECTOR, text: "A vector of the client's own", embedding: given }));
  const encoding = (await full(VECTOR)).embedding?.encoding;
  const packed = Buffer.from(encoding?.$case === "packedF32" ? encoding.value : []);
  say("vector.dimension", packed.length / 4);
  say("vector.starts", packed.subarray(0, 12).toString("hex"));
  say("vector.ends", packed.subarray(-8).toString("hex"));
}

const remember = (memory: Memory) =>
  unary<RememberResponse>((done) => memories.remember(RememberRequest.fromPartial({ memory }), done));

async function full(key = ""): Promise<Memory> {
  const request = GetRequest.fromPartial({ target: named(key), view: MemoryView.MEMORY_VIEW_FULL });
  return (await unary<GetResponse>((done) => memories.get(request, done))).memory ?? Memory.fromPartial({});
}

// --- recall

async function recalling(): Promise<void> {
  await remember(Memory.fromPartial({ key: TRAIN, text: "The night train to Vienna leaves from platform nine" }));
  await remember(Memory.fromPartial({ key: GARDEN, text: ROSES }));
  const text = "which platform does the night train leave from?";
  const request = RecallRequest.fromPartial({ query: { $case: "text", value: text }, limit: 10 });
  const keys: string[] = [];
  const legs: string[] = [];
  let endsWithSummary = false;
  for await (const { frame } of memories.recall(request) as AsyncIterable<RecallResponse>) {
    endsWithSummary = frame?.$case === "summary";
    if (frame?.$case === "hit") keys.push(frame.value.memory?.key ?? "");
    if (frame?.$case === "summary") {
      legs.push(...frame.value.legs.map(({ leg }) => String(RecallLeg[leg]).replace("RECALL_LEG_", "")));
    }
  }
  say("recall.best", keys[0]);
  say("recall.keys", keys.sort().join("|"));
  say("recall.ends_with_summary", endsWithSummary);
  say("recall.legs", legs.sort().join("|"));
}

// --- links

async function linking(): Promise<void> {
  const links: [string?, string?, number?][] = [[ADA, TRAIN, 0.8], [TRAIN, GARDEN, 0.3]];
  for (const [source, end, strength] of links) {
    const request = LinkRequest.fromPartial({
      source: named(source),
      target: named(end),
      relation: "references",
      strength,
      metadataJson: '{"n":9007199254740993}',
    });
    const linked = await unary<LinkResponse>((done) => graph.link(request, done));
    say("link.created", linked.created);
    say("link.version", linked.link?.version);
    say("link.strength", bits(linked.link?.strength));
    say("link.metadata_json", linked.link?.metadataJson);
  }
  const request = NeighborsRequest.fromPartial({
    target: named(ADA),
    kHop: 2,
    direction: Direction.DIRECTION_OUTGOING,
    includeMemories: true,
  });
  for await (const { frame } of graph.neighbors(request) as AsyncIterable<NeighborsResponse>) {
    if (frame?.$case === "neighbors") {
      for (const { memory, depth, strength, via } of frame.value.neighbors) {
        say("neighbour", `${memory?.key}|${depth}|${bits(strength)}|${via?.relation}`);
      }
    }
    if (frame?.$case === "summary") say("neighbours.partial", frame.value.partial);
  }
  const nowhere = { source: named(ADA), target: named("polyglot.nobody"), relation: "references" };
  await refused("link_to_nobody", unary<LinkResponse>((done) => graph.link(LinkRequest.fromPartial(nowhere), done)));
}

// --- import

async function importing(): Promise<void> {
  const request = CreateImportRequest.fromPartial({
    onConflict: ImportConflict.IMPORT_CONFLICT_FAIL,
    label: "polyglot",
  });
  const { job } = await unary<CreateImportResponse>((done) => batch.createImport(request, done));
  const importId = job?.importId ?? "";
  const sending = new Import(through, importId, book(), 20);
  const done = await sending.run();
  say("import.cut_and_resumed", sending.connections > 1);
  say("import.state", ImportState[done.state]);
  say("import.total", done.total);
  say("import.stored", done.stored);
  say("import.refused", done.refused);
  const errors = ListImportErrorsRequest.fromPartial({ importId });
  const listed = await unary<ListImportErrorsResponse>((done) => batch.listImportErrors(errors, done));
  for (const { offset, error } of listed.refused) {
    const paths = error?.violations.map(({ fieldPath }) => fieldPath).join("|");
    say("import.error", `${offset}|${error?.code}|${ErrorReason[error?.reason ?? 0]}|${paths}`);
  }
  const keys: string[] = [];
  const list = ListRequest.fromPartial({ keyPrefix: "import.", order: ListOrder.LIST_ORDER_KEY, pageSize: 70 });
  do {
    const page = await unary<ListResponse>((done) => memories.list(list, done));
    keys.push(...page.memories.map(({ key }) => key));
    list.pageToken = page.nextPageToken;
  } while (list.pageToken);
  say("import.listed", `${keys.length}|${keys[0]}|${keys.at(-1)}`);
}

/** Holds one record that may not be stored. */
function* book(): Generator<Record> {
  for (let number = 0; number < RECORDS; number++) {
    const place = String(number).padStart(3, "0");
    const memory = Memory.fromPartial({
      key: `import.${place}`,
      text: `Line ${place} of a long book, ${"and so on ".repeat(80)}`,
      relevance: number === REFUSED ? 1.5 : undefined,
    });
    yield Record.fromPartial({ record: { $case: "memory", value: memory } });
  }
}

// --- refusals

async function refusing(foreignTenant: string): Promise<void> {
  await refused("bad_fields", remember(Memory.fromPartial({ text: "x", relevance: 2, tags: ["same", "same"] })));
  await refused("no_such_key", full("polyglot.nobody"));
  const conditional = RememberRequest.fromPartial({ memory: { key: GARDEN, text: ROSES }, ifMatch: 7n });
  await refused("wrong_version", unary<RememberResponse>((done) => memories.remember(conditional, done)));
  await refused("foreign_tenant", asked({ ...identity, tenant: foreignTenant }));
  await refused("wrong_key", asked({ ...identity, key: "soma_0000000000000000_wrong" }));
  const request = ForgetRequest.fromPartial({ target: named(GARDEN) });
  const forgotten = await unary<ForgetResponse>((done) => memories.forget(request, done));
  say("forget.durability", Durability[forgotten.durability]);
  await refused("forgotten", full(GARDEN));
}

/** Gets a memory as somebody else. */
async function asked(other: typeof identity): Promise<void> {
  const client = new MemoryServiceClient(target, plaintext, { interceptors: [calledBy(other)] });
  try {
    await unary<GetResponse>((done) => client.get(GetRequest.fromPartial({ target: named(ADA) }), done));
  } finally {
    client.close();
  }
}

async function refused(name: string, call: Promise<unknown>): Promise<void> {
  try {
    await call;
    say(`${name}.code`, 0);
  } catch (error) {
    const { info, violations } = refusalOf(error as ServiceError);
    say(`${name}.code`, (error as ServiceError).code);
    say(`${name}.reason`, info?.reason);
    for (const key of Object.keys(info?.metadata ?? {}).sort()) say(`${name}.metadata.${key}`, info?.metadata[key]);
    for (const { field, description } of violations) say(`${name}.field`, `${field}: ${description}`);
  }
}

// --- words

function say(name: string, value: unknown): void {
  process.stdout.write(`${name}: ${value}\n`);
}

function bits(number = Number.NaN): string {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(number);
  return bytes.toString("hex");
}

function named(key = ""): MemoryTarget {
  return { target: { $case: "key", value: { namespace: "", key } } };
}

type Done<Response> = (error: ServiceError | null, response: Response) => void;

/** A unary call as a promise. */
function unary<Response>(call: (done: Done<Response>) => unknown): Promise<Response> {
  return new Promise((resolve, reject) => {
    call((error, response) => (error ? reject(error) : resolve(response)));
  });
}

await remembering();
await embedding();
await recalling();
await linking();
await importing();
await refusing(environment("SOMA_FOREIGN_TENANT"));
for (const client of [memories, graph, batch, through]) client.close();
