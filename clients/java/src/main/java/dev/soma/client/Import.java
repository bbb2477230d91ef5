package dev.soma.client;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import dev.soma.batch.v1.BatchServiceGrpc.BatchServiceBlockingV2Stub;
import dev.soma.batch.v1.FinishImport;
import dev.soma.batch.v1.ImportChunk;
import dev.soma.batch.v1.ImportJob;
import dev.soma.batch.v1.ImportRecordsRequest;
import dev.soma.batch.v1.ImportRecordsResponse;
import dev.soma.batch.v1.OpenImport;
import dev.soma.batch.v1.Record;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.BlockingClientCall;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.Queue;

/**
 * Sends the records of one import job and finishes it, through any number of broken connections.
 *
 * <p>What was sent is kept until it is acknowledged, so the records may come from a source that can be read only once.
 * What the job has dealt with already is passed over: a process that died is followed by one that imports the same
 * records. For one thread.
 */
public final class Import {
  /** Connections in a row that may break without anything having been acknowledged. */
  private static final int ATTEMPTS = 8;

  private static final Duration FIRST_WAIT = Duration.ofMillis(100);
  private static final Duration LONGEST_WAIT = Duration.ofSeconds(2);

  private final BatchServiceBlockingV2Stub stub;
  private final String importId;
  private final Iterator<Record> records;
  private final int chunkRecords;
  private final Deque<ImportChunk> unacknowledged = new ArrayDeque<>();
  private long read;
  private long acknowledged;
  private int connections;

  /** An import in chunks of so many records, at most 1,000 and 3 MiB. */
  public Import(BatchServiceBlockingV2Stub stub, String importId, Iterator<Record> records, int chunkRecords) {
    this.stub = stub;
    this.importId = importId;
    this.records = records;
    this.chunkRecords = chunkRecords;
  }

  /** Streams that were opened. */
  public int connections() {
    return connections;
  }

  /**
   * Sends everything and returns the finished job.
   *
   * @throws StatusException why the job ended, or that the server stays away
   */
  public ImportJob run() throws StatusException, InterruptedException {
    for (int failed = 0; ; ) {
      long before = acknowledged;
      connections++;
      BlockingClientCall<ImportRecordsRequest, ImportRecordsResponse> call = stub.importRecords();
      try {
        return connection(call);
      } catch (Drained drained) {
        failed = 0;
        Thread.sleep(drained.after.toMillis());
      } catch (StatusException error) {
        failed = acknowledged > before ? 1 : failed + 1;
        if (!isBroken(error) || failed >= ATTEMPTS) {
          throw error;
        }
        Thread.sleep(Math.min(LONGEST_WAIT.toMillis(), FIRST_WAIT.toMillis() << failed));
      } finally {
        call.cancel("the import leaves this connection", null);
      }
    }
  }

  private ImportJob connection(BlockingClientCall<ImportRecordsRequest, ImportRecordsResponse> call)
      throws StatusException, InterruptedException, Drained {
    send(call, ImportRecordsRequest.newBuilder().setOpen(OpenImport.newBuilder().setImportId(importId)));
    ImportRecordsResponse opened = receive(call);
    goOnFrom(opened.getOpened().getCommittedOffset());
    Queue<ImportChunk> again = new ArrayDeque<>(unacknowledged);
    for (int credit = opened.getOpened().getCredit(); ; ) {
      for (; credit > 0; credit--) {
        ImportChunk chunk = again.isEmpty() ? nextChunk() : again.remove();
        if (chunk.getRecordsCount() == 0) {
          break;
        }
        send(call, ImportRecordsRequest.newBuilder().setChunk(chunk));
      }
      if (unacknowledged.isEmpty()) {
        break;
      }
      ImportRecordsResponse frame = receive(call);
      acknowledge(frame.getAck().getCommittedOffset());
      credit += frame.getAck().getCredit();
    }
    send(call, ImportRecordsRequest.newBuilder().setFinish(FinishImport.newBuilder().setTotal(read)));
    for (; ; ) {
      ImportRecordsResponse frame = receive(call);
      if (frame.hasFinished()) {
        return frame.getFinished().getJob();
      }
    }
  }

  /** Passes over what the job has dealt with. */
  private void goOnFrom(long offset) {
    acknowledge(offset);
    for (; read < offset && records.hasNext(); read++) {
      records.next();
    }
  }

  private void acknowledge(long offset) {
    acknowledged = Math.max(acknowledged, offset);
    while (!unacknowledged.isEmpty()
        && unacknowledged.peek().getOffset() + unacknowledged.peek().getRecordsCount() <= offset) {
      unacknowledged.remove();
    }
  }

  /** Reads the next records and keeps them until they are acknowledged; none at the end. */
  private ImportChunk nextChunk() {
    ImportChunk.Builder chunk = ImportChunk.newBuilder().setOffset(read);
    for (; chunk.getRecordsCount() < chunkRecords && records.hasNext(); read++) {
      chunk.addRecords(records.next());
    }
    ImportChunk made = chunk.build();
    if (made.getRecordsCount() > 0) {
      unacknowledged.add(made);
    }
    return made;
  }

  /** A stream that has ended takes nothing more; reading tells why. */
  private static void send(
      BlockingClientCall<ImportRecordsRequest, ImportRecordsResponse> call, ImportRecordsRequest.Builder frame)
      throws StatusException, InterruptedException {
    call.write(frame.build());
  }

  private static ImportRecordsResponse receive(BlockingClientCall<ImportRecordsRequest, ImportRecordsResponse> call)
      throws StatusException, InterruptedException, Drained {
    ImportRecordsResponse frame = call.read();
    if (frame == null) {
      throw Status.UNAVAILABLE.withDescription("the import's stream ended early").asException();
    }
    if (frame.hasDrain()) {
      com.google.protobuf.Duration after = frame.getDrain().getReconnectAfter();
      throw new Drained(Duration.ofSeconds(after.getSeconds(), after.getNanos()));
    }
    return frame;
  }

  /** Tells a lost connection, which has no reason, from a refusal, which has one. */
  private static boolean isBroken(StatusException error) {
    Status.Code code = error.getStatus().getCode();
    com.google.rpc.Status told = StatusProto.fromThrowable(error);
    for (Any detail : told.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        return code == Status.Code.UNAVAILABLE;
      }
    }
    return switch (code) {
      case UNAVAILABLE, INTERNAL, UNKNOWN, CANCELLED -> true;
      default -> false;
    };
  }

  /** The server shuts down and asks to be called again. */
  private static final class Drained extends Exception {
    private static final long serialVersionUID = 1;
    private final transient Duration after;

    Drained(Duration after) {
      this.after = after;
    }
  }
}
