package dev.soma.client;

import static dev.soma.client.Words.bits;
import static dev.soma.client.Words.named;
import static dev.soma.client.Words.refused;
import static dev.soma.client.Words.say;

import com.google.protobuf.ByteString;
import com.google.protobuf.Timestamp;
import dev.soma.batch.v1.BatchServiceGrpc;
import dev.soma.batch.v1.BatchServiceGrpc.BatchServiceBlockingV2Stub;
import dev.soma.batch.v1.CreateImportRequest;
import dev.soma.batch.v1.ImportConflict;
import dev.soma.batch.v1.ImportJob;
import dev.soma.batch.v1.ListImportErrorsRequest;
import dev.soma.batch.v1.Record;
import dev.soma.batch.v1.RefusedRecord;
import dev.soma.common.v1.FieldViolation;
import dev.soma.common.v1.FloatValues;
import dev.soma.common.v1.Provenance;
import dev.soma.common.v1.Vector;
import dev.soma.graph.v1.Direction;
import dev.soma.graph.v1.GraphServiceGrpc;
import dev.soma.graph.v1.GraphServiceGrpc.GraphServiceBlockingV2Stub;
import dev.soma.graph.v1.LinkRequest;
import dev.soma.graph.v1.LinkResponse;
import dev.soma.graph.v1.Neighbor;
import dev.soma.graph.v1.NeighborsRequest;
import dev.soma.graph.v1.NeighborsResponse;
import dev.soma.memory.v1.ForgetRequest;
import dev.soma.memory.v1.GetRequest;
import dev.soma.memory.v1.Kind;
import dev.soma.memory.v1.ListOrder;
import dev.soma.memory.v1.ListRequest;
import dev.soma.memory.v1.ListResponse;
import dev.soma.memory.v1.Memory;
import dev.soma.memory.v1.MemoryServiceGrpc;
import dev.soma.memory.v1.MemoryServiceGrpc.MemoryServiceBlockingV2Stub;
import dev.soma.memory.v1.MemoryView;
import dev.soma.memory.v1.RecallRequest;
import dev.soma.memory.v1.RecallResponse;
import dev.soma.memory.v1.RememberRequest;
import dev.soma.memory.v1.RememberResponse;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * What the clients of all languages do, printed line by line; the transcripts are compared byte for byte. Doubles are
 * printed as their bits and codes as numbers, so that nothing can be rounded or re-spelled.
 */
public final class Scenario {
  private static final String ADA = "polyglot.ada";
  private static final String TRAIN = "polyglot.train";
  private static final String GARDEN = "polyglot.garden";
  private static final String VECTOR = "polyglot.vector";
  private static final String ROSES = "Roses in the garden need water every second day";
  private static final int RECORDS = 300;
  private static final int REFUSED = 150;

  private final Identity identity;
  private final MemoryServiceBlockingV2Stub memories;
  private final GraphServiceBlockingV2Stub graph;
  private final BatchServiceBlockingV2Stub batch;
  private final BatchServiceBlockingV2Stub through;

  private Scenario(ManagedChannel channel, ManagedChannel breaking, Identity identity) {
    this.identity = identity;
    memories = MemoryServiceGrpc.newBlockingV2Stub(channel).withCallCredentials(identity.credentials());
    graph = GraphServiceGrpc.newBlockingV2Stub(channel).withCallCredentials(identity.credentials());
    batch = BatchServiceGrpc.newBlockingV2Stub(channel).withCallCredentials(identity.credentials());
    through = BatchServiceGrpc.newBlockingV2Stub(breaking).withCallCredentials(identity.credentials());
  }

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = channel("SOMA_TARGET");
    ManagedChannel breaking = channel("SOMA_IMPORT_TARGET");
    try {
      Identity identity = new Identity(System.getenv("SOMA_KEY"), System.getenv("SOMA_TENANT"));
      Scenario scenario = new Scenario(channel, breaking, identity);
      scenario.remembering();
      scenario.embedding();
      scenario.recalling();
      scenario.linking();
      scenario.importing();
      scenario.refusing(System.getenv("SOMA_FOREIGN_TENANT"));
    } finally {
      channel.shutdownNow();
      breaking.shutdownNow();
    }
  }

  private static ManagedChannel channel(String variable) {
    return Grpc.newChannelBuilder(System.getenv(variable), InsecureChannelCredentials.create()).build();
  }

  // --- remember and read

  private void remembering() throws StatusException {
    Memory memory =
        Memory.newBuilder()
            .setKey(ADA)
            .setKind(Kind.KIND_SEMANTIC)
            .setSchemaType("UserPreference")
            .setText("Ada prefers tea – 茶 – over coffee ☕")
            .setPayloadJson(
                "{\"exact\":9007199254740993,\"ratio\":5.0,\"negative\":-0.0,\"quoted\":\"\\\"\\u00e9\\\"\"}")
            .addTags("taste")
            .addTags("drink")
            .setActor("Ada")
            .setSessionId("s-1")
            .setSequence(9007199254740993L)
            .setProvenance(Provenance.newBuilder().setAuthor("Ada").setSource("chat").setConfidence(0.7))
            .setImportance(0.1)
            .setRelevance(0.3)
            .setOccurredTime(Timestamp.newBuilder().setSeconds(1772323199).setNanos(123456000))
            .build();
    for (String name : List.of("remember", "again")) {
      RememberResponse stored = remember(memory);
      say(name + ".memory_id", stored.getMemory().getMemoryId());
      say(name + ".durability", stored.getDurability());
      say(name + ".created", stored.getCreated());
      say(name + ".version", stored.getMemory().getVersion());
    }
    Memory got = full(ADA);
    Provenance from = got.getProvenance();
    Timestamp occurred = got.getOccurredTime();
    say("get.kind", got.getKind());
    say("get.schema_type", got.getSchemaType());
    say("get.text", got.getText());
    say("get.payload_json", got.getPayloadJson());
    say("get.tags", String.join("|", got.getTagsList()));
    say("get.actor", got.getActor());
    say("get.session_id", got.getSessionId());
    say("get.sequence", got.getSequence());
    say("get.provenance", from.getAuthor() + "|" + from.getSource() + "|" + bits(from.getConfidence()));
    say("get.importance", bits(got.getImportance()));
    say("get.relevance", bits(got.getRelevance()));
    say("get.occurred_time", "%d.%09d".formatted(occurred.getSeconds(), occurred.getNanos()));
    say(
        "get.coordinate",
        got.getCoordinate().getValuesList().stream().map(Words::bits).collect(Collectors.joining("|")));
  }

  private void embedding() throws StatusException {
    List<Float> values = new ArrayList<>(Collections.nCopies(384, 0.0f));
    values.set(0, 0.5f);
    values.set(1, -0.5f);
    values.set(200, 0.5f);
    values.set(383, -0.5f);
    Vector given = Vector.newBuilder().setValues(FloatValues.newBuilder().addAllValues(values)).build();
    remember(
        Memory.newBuilder().setKey(VECTOR).setText("A vector of the client's own").setEmbedding(given).build());
    ByteString packed = full(VECTOR).getEmbedding().getPackedF32();
    say("vector.dimension", packed.size() / 4);
    say("vector.starts", HexFormat.of().formatHex(packed.substring(0, 12).toByteArray()));
    say("vector.ends", HexFormat.of().formatHex(packed.substring(packed.size() - 8).toByteArray()));
  }

  private RememberResponse remember(Memory memory) throws StatusException {
    return memories.remember(RememberRequest.newBuilder().setMemory(memory).build());
  }

  private Memory full(String key) throws StatusException {
    GetRequest request =
        GetRequest.newBuilder().setTarget(named(key)).setView(MemoryView.MEMORY_VIEW_FULL).build();
    return memories.get(request).getMemory();
  }

  // --- recall

  private void recalling() throws StatusException, InterruptedException {
    String train = "The night train to Vienna leaves from platform nine";
    remember(Memory.newBuilder().setKey(TRAIN).setText(train).build());
    remember(Memory.newBuilder().setKey(GARDEN).setText(ROSES).build());
    String question = "which platform does the night train leave from?";
    BlockingClientCall<?, RecallResponse> frames =
        memories.recall(RecallRequest.newBuilder().setText(question).setLimit(10).build());
    List<String> keys = new ArrayList<>();
    List<String> legs = new ArrayList<>();
    boolean endsWithSummary = false;
    for (RecallResponse frame = frames.read(); frame != null; frame = frames.read()) {
      endsWithSummary = frame.hasSummary();
      if (frame.hasHit()) {
        keys.add(frame.getHit().getMemory().getKey());
      }
      frame.getSummary().getLegsList().forEach(leg -> legs.add(leg.getLeg().name().replace("RECALL_LEG_", "")));
    }
    say("recall.best", keys.get(0));
    Collections.sort(keys);
    Collections.sort(legs);
    say("recall.keys", String.join("|", keys));
    say("recall.ends_with_summary", endsWithSummary);
    say("recall.legs", String.join("|", legs));
  }

  // --- links

  private void linking() throws StatusException, InterruptedException {
    link(ADA, TRAIN, 0.8);
    link(TRAIN, GARDEN, 0.3);
    NeighborsRequest request =
        NeighborsRequest.newBuilder()
            .setTarget(named(ADA))
            .setKHop(2)
            .setDirection(Direction.DIRECTION_OUTGOING)
            .setIncludeMemories(true)
            .build();
    BlockingClientCall<?, NeighborsResponse> frames = graph.neighbors(request);
    for (NeighborsResponse frame = frames.read(); frame != null; frame = frames.read()) {
      for (Neighbor near : frame.getNeighbors().getNeighborsList()) {
        String found = near.getMemory().getKey() + "|" + near.getDepth() + "|" + bits(near.getStrength());
        say("neighbour", found + "|" + near.getVia().getRelation());
      }
      if (frame.hasSummary()) {
        say("neighbours.partial", frame.getSummary().getPartial());
      }
    }
    LinkRequest nowhere =
        LinkRequest.newBuilder()
            .setSource(named(ADA))
            .setTarget(named("polyglot.nobody"))
            .setRelation("references")
            .build();
    refused("link_to_nobody", () -> graph.link(nowhere));
  }

  private void link(String source, String target, double strength) throws StatusException {
    LinkRequest request =
        LinkRequest.newBuilder()
            .setSource(named(source))
            .setTarget(named(target))
            .setRelation("references")
            .setStrength(strength)
            .setMetadataJson("{\"n\":9007199254740993}")
            .build();
    LinkResponse linked = graph.link(request);
    say("link.created", linked.getCreated());
    say("link.version", linked.getLink().getVersion());
    say("link.strength", bits(linked.getLink().getStrength()));
    say("link.metadata_json", linked.getLink().getMetadataJson());
  }

  // --- import

  private void importing() throws StatusException, InterruptedException {
    CreateImportRequest request =
        CreateImportRequest.newBuilder()
            .setOnConflict(ImportConflict.IMPORT_CONFLICT_FAIL)
            .setLabel("polyglot")
            .build();
    String importId = batch.createImport(request).getJob().getImportId();
    Import sending = new Import(through, importId, IntStream.range(0, RECORDS).mapToObj(Scenario::line).iterator(), 20);
    ImportJob done = sending.run();
    say("import.cut_and_resumed", sending.connections() > 1);
    say("import.state", done.getState());
    say("import.total", done.getTotal());
    say("import.stored", done.getStored());
    say("import.refused", done.getRefused());
    ListImportErrorsRequest errors = ListImportErrorsRequest.newBuilder().setImportId(importId).build();
    for (RefusedRecord record : batch.listImportErrors(errors).getRefusedList()) {
      String paths =
          record.getError().getViolationsList().stream()
              .map(FieldViolation::getFieldPath)
              .collect(Collectors.joining("|"));
      String error = record.getError().getCode() + "|" + record.getError().getReason();
      say("import.error", record.getOffset() + "|" + error + "|" + paths);
    }
    List<String> keys = new ArrayList<>();
    ListRequest.Builder list =
        ListRequest.newBuilder().setKeyPrefix("import.").setOrder(ListOrder.LIST_ORDER_KEY).setPageSize(70);
    do {
      ListResponse page = memories.list(list.build());
      page.getMemoriesList().forEach(memory -> keys.add(memory.getKey()));
      list.setPageToken(page.getNextPageToken());
    } while (!list.getPageToken().isEmpty());
    say("import.listed", keys.size() + "|" + keys.get(0) + "|" + keys.get(keys.size() - 1));
  }

  /** One line of the book; one of them may not be stored. */
  private static Record line(int number) {
    String place = "%03d".formatted(number);
    Memory.Builder memory =
        Memory.newBuilder()
            .setKey("import." + place)
            .setText("Line " + place + " of a long book, " + "and so on ".repeat(80));
    if (number == REFUSED) {
      memory.setRelevance(1.5);
    }
    return Record.newBuilder().setMemory(memory).build();
  }

  // --- refusals

  private void refusing(String foreignTenant) throws StatusException {
    Memory bad = Memory.newBuilder().setText("x").setRelevance(2.0).addTags("same").addTags("same").build();
    refused("bad_fields", () -> remember(bad));
    refused("no_such_key", () -> full("polyglot.nobody"));
    RememberRequest conditional =
        RememberRequest.newBuilder()
            .setMemory(Memory.newBuilder().setKey(GARDEN).setText(ROSES))
            .setIfMatch(7)
            .build();
    refused("wrong_version", () -> memories.remember(conditional));
    refused("foreign_tenant", () -> asked(new Identity(identity.key(), foreignTenant)));
    refused("wrong_key", () -> asked(new Identity("soma_0000000000000000_wrong", identity.tenant())));
    ForgetRequest forget = ForgetRequest.newBuilder().setTarget(named(GARDEN)).build();
    say("forget.durability", memories.forget(forget).getDurability());
    refused("forgotten", () -> full(GARDEN));
  }

  /** Gets a memory as somebody else. */
  private Memory asked(Identity other) throws StatusException {
    GetRequest request = GetRequest.newBuilder().setTarget(named(ADA)).build();
    return memories.withCallCredentials(other.credentials()).get(request).getMemory();
  }
}
