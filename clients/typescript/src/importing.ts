import { setTimeout as pause } from "node:timers/promises";
import { type ClientDuplexStream, type ServiceError, status } from "@grpc/grpc-js";
import {
  type BatchServiceClient,
  ImportChunk,
  type ImportJob,
  ImportRecordsRequest,
  type ImportRecordsResponse,
  type Record,
} from "../gen/soma/batch/v1/batch_service.js";
import { refusalOf } from "./refusals.js";

/** Connections in a row that may break without anything having been acknowledged. */
const ATTEMPTS = 8;
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2000;
const BROKEN = new Set([status.UNAVAILABLE, status.INTERNAL, status.UNKNOWN, status.CANCELLED]);

type Call = ClientDuplexStream<ImportRecordsRequest, ImportRecordsResponse>;

/** The server shuts down and asks to be called again. */
class Drained extends Error {
  constructor(readonly afterMs: number) {
    super("the server is shutting down");
  }
}

class EndedEarly extends Error {}

/**
 * Sends the records of one import job and finishes it, through any number of broken connections.
 *
 * What was sent is kept until it is acknowledged, so the records may come from a source that can be read only once. What
 * the job has dealt with already is passed over: a process that died is followed by one that imports the same records.
 */
export class Import {
  /** Streams that were opened. */
  connections = 0;
  readonly #records: AsyncIterator<Record>;
  #read = 0n;
  #acknowledged = 0n;
  #unacknowledged: ImportChunk[] = [];

  constructor(
    readonly client: BatchServiceClient,
    readonly importId: string,
    records: Iterable<Record> | AsyncIterable<Record>,
    /** Records that travel together, at most 1,000 and 3 MiB. */
    readonly chunkRecords = 500,
  ) {
    this.#records = each(records);
  }

  /** Resolves to the finished job; rejects with the ServiceError that ended it. */
  async run(): Promise<ImportJob> {
    for (let failed = 0; ; ) {
      const before = this.#acknowledged;
      const call = this.client.importRecords();
      call.on("error", () => {}); // it is raised where frames are read
      this.connections += 1;
      try {
        return await this.#connection(call);
      } catch (error) {
        if (error instanceof Drained) {
          failed = 0;
          await pause(error.afterMs);
          continue;
        }
        failed = this.#acknowledged > before ? 1 : failed + 1;
        if (!isBroken(error) || failed >= ATTEMPTS) throw error;
        await pause(Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failed));
      } finally {
        call.cancel();
      }
    }
  }

  async #connection(call: Call): Promise<ImportJob> {
    const frames = received(call);
    send(call, { $case: "open", value: { importId: this.importId } });
    const opened = await next(frames);
    if (opened?.$case !== "opened") throw new EndedEarly("the server did not open the job");
    await this.#goOnFrom(opened.value.committedOffset);
    const again = [...this.#unacknowledged];
    for (let credit = opened.value.credit; ; ) {
      while (credit > 0) {
        const chunk = again.shift() ?? (await this.#nextChunk());
        if (!chunk) break;
        send(call, { $case: "chunk", value: chunk });
        credit -= 1;
      }
      if (this.#unacknowledged.length === 0) break;
      const frame = await next(frames);
      if (frame?.$case === "ack") {
        this.#acknowledge(frame.value.committedOffset);
        credit += frame.value.credit;
      }
    }
    send(call, { $case: "finish", value: { total: this.#read } });
    for (;;) {
      const frame = await next(frames);
      if (frame?.$case === "finished" && frame.value.job) return frame.value.job;
    }
  }

  /** Passes over what the job has dealt with. */
  async #goOnFrom(offset: bigint): Promise<void> {
    this.#acknowledge(offset);
    while (this.#read < offset && !(await this.#records.next()).done) this.#read += 1n;
  }

  #acknowledge(offset: bigint): void {
    if (offset > this.#acknowledged) this.#acknowledged = offset;
    this.#unacknowledged = this.#unacknowledged.filter((chunk) => chunk.offset + BigInt(chunk.records.length) > offset);
  }

  /** Reads the next records and keeps them until they are acknowledged. */
  async #nextChunk(): Promise<ImportChunk | undefined> {
    const chunk = ImportChunk.fromPartial({ offset: this.#read });
    while (chunk.records.length < this.chunkRecords) {
      const { done, value } = await this.#records.next();
      if (done) break;
      chunk.records.push(value);
      this.#read += 1n;
    }
    if (chunk.records.length === 0) return undefined;
    this.#unacknowledged.push(chunk);
    return chunk;
  }
}

async function* each(records: Iterable<Record> | AsyncIterable<Record>): AsyncGenerator<Record> {
  yield* records;
}

function received(call: Call): AsyncIterator<ImportRecordsResponse> {
  return call[Symbol.asyncIterator]() as AsyncIterator<ImportRecordsResponse>;
}

function send(call: Call, frame: NonNullable<ImportRecordsRequest["frame"]>): void {
  call.write(ImportRecordsRequest.fromPartial({ frame }));
}

async function next(frames: AsyncIterator<ImportRecordsResponse>): Promise<ImportRecordsResponse["frame"]> {
  const { done, value } = await frames.next();
  if (done) throw new EndedEarly("the import's stream ended early");
  if (value.frame?.$case === "drain") {
    const after = value.frame.value.reconnectAfter;
    throw new Drained(Number(after?.seconds ?? 0n) * 1000 + (after?.nanos ?? 0) / 1e6);
  }
  return value.frame;
}

/** Tells a lost connection, which has no reason, from a refusal, which has one. */
function isBroken(error: unknown): boolean {
  if (error instanceof EndedEarly) return true;
  const failed = error as ServiceError;
  if (refusalOf(failed).info) return failed.code === status.UNAVAILABLE;
  return BROKEN.has(failed.code);
}
