// Command scenario does what the clients of all languages do and prints it line by line; the transcripts are compared
// byte for byte. Doubles are printed as their bits and codes as numbers, so that nothing can be rounded or re-spelled.
package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"soma.dev"
	batchv1 "soma.dev/gen/soma/batch/v1"
	commonv1 "soma.dev/gen/soma/common/v1"
	graphv1 "soma.dev/gen/soma/graph/v1"
	memoryv1 "soma.dev/gen/soma/memory/v1"
)

const (
	ada, train, garden, vector = "polyglot.ada", "polyglot.train", "polyglot.garden", "polyglot.vector"

	records = 300
	refused = 150
)

type scenario struct {
	context  context.Context
	identity soma.Identity
	memory   memoryv1.MemoryServiceClient
	graph    graphv1.GraphServiceClient
	batch    batchv1.BatchServiceClient
	through  batchv1.BatchServiceClient // by a network that breaks
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	identity := soma.Identity{Key: os.Getenv("SOMA_KEY"), Tenant: os.Getenv("SOMA_TENANT"), Plaintext: true}
	connection, through := connect("SOMA_TARGET", identity), connect("SOMA_IMPORT_TARGET", identity)
	defer connection.Close()
	defer through.Close()
	s := scenario{
		context:  ctx,
		identity: identity,
		memory:   memoryv1.NewMemoryServiceClient(connection),
		graph:    graphv1.NewGraphServiceClient(connection),
		batch:    batchv1.NewBatchServiceClient(connection),
		through:  batchv1.NewBatchServiceClient(through),
	}
	s.remembering()
	s.embedding()
	s.recalling()
	s.linking()
	s.importing()
	s.refusing(os.Getenv("SOMA_FOREIGN_TENANT"))
}

func connect(variable string, identity soma.Identity) *grpc.ClientConn {
	return must(grpc.NewClient(
		os.Getenv(variable),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(identity),
	))
}

// --- remember and read -------------------------------------------------------------------------------------------

func (s *scenario) remembering() {
	memory := &memoryv1.Memory{
		Key:          ada,
		Kind:         memoryv1.Kind_KIND_SEMANTIC,
		SchemaType:   "UserPreference",
		Text:         "Ada prefers tea – 茶 – over coffee ☕",
		PayloadJson:  `{"exact":9007199254740993,"ratio":5.0,"negative":-0.0,"quoted":"\"\u00e9\""}`,
		Tags:         []string{"taste", "drink"},
		Actor:        "Ada",
		SessionId:    "s-1",
		Sequence:     proto.Int64(9007199254740993),
		Provenance:   &commonv1.Provenance{Author: "Ada", Source: "chat", Confidence: proto.Float64(0.7)},
		Importance:   proto.Float64(0.1),
		Relevance:    proto.Float64(0.3),
		OccurredTime: &timestamppb.Timestamp{Seconds: 1772323199, Nanos: 123456000},
	}
	for _, name := range []string{"remember", "again"} {
		stored := must(s.memory.Remember(s.context, &memoryv1.RememberRequest{Memory: memory}))
		say(name+".memory_id", stored.GetMemory().GetMemoryId())
		say(name+".durability", stored.GetDurability())
		say(name+".created", stored.GetCreated())
		say(name+".version", stored.GetMemory().GetVersion())
	}
	got := s.full(ada)
	say("get.kind", got.GetKind())
	say("get.schema_type", got.GetSchemaType())
	say("get.text", got.GetText())
	say("get.payload_json", got.GetPayloadJson())
	say("get.tags", strings.Join(got.GetTags(), "|"))
	say("get.actor", got.GetActor())
	say("get.session_id", got.GetSessionId())
	say("get.sequence", got.GetSequence())
	from := got.GetProvenance()
	say("get.provenance", from.GetAuthor()+"|"+from.GetSource()+"|"+bits(from.GetConfidence()))
	say("get.importance", bits(got.GetImportance()))
	say("get.relevance", bits(got.GetRelevance()))
	say("get.occurred_time", fmt.Sprintf("%d.%09d", got.GetOccurredTime().GetSeconds(), got.GetOccurredTime().GetNanos()))
	say("get.coordinate", joined(got.GetCoordinate().GetValues(), bits))
}

func (s *scenario) embedding() {
	values := make([]float32, 384)
	values[0], values[1], values[200], values[383] = 0.5, -0.5, 0.5, -0.5
	s.remember(&memoryv1.Memory{
		Key:  vector,
		Text: "A vector of the client's own",
		Embedding: &commonv1.Vector{
			Encoding: &commonv1.Vector_Values{Values: &commonv1.FloatValues{Values: values}},
		},
	})
	packed := s.full(vector).GetEmbedding().GetPackedF32()
	say("vector.dimension", len(packed)/4)
	say("vector.starts", hex.EncodeToString(packed[:12]))
	say("vector.ends", hex.EncodeToString(packed[len(packed)-8:]))
}

func (s *scenario) remember(memory *memoryv1.Memory) {
	must(s.memory.Remember(s.context, &memoryv1.RememberRequest{Memory: memory}))
}

func (s *scenario) full(key string) *memoryv1.Memory {
	request := &memoryv1.GetRequest{Target: named(key), View: memoryv1.MemoryView_MEMORY_VIEW_FULL}
	return must(s.memory.Get(s.context, request)).GetMemory()
}

// --- recall ------------------------------------------------------------------------------------------------------

func (s *scenario) recalling() {
	s.remember(&memoryv1.Memory{Key: train, Text: "The night train to Vienna leaves from platform nine"})
	s.remember(&memoryv1.Memory{Key: garden, Text: "Roses in the garden need water every second day"})
	query := &memoryv1.RecallRequest_Text{Text: "which platform does the night train leave from?"}
	stream := must(s.memory.Recall(s.context, &memoryv1.RecallRequest{Query: query, Limit: 10}))
	var keys, legs []string
	endsWithSummary := false
	for frame := range frames(stream) {
		endsWithSummary = frame.GetSummary() != nil
		if hit := frame.GetHit(); hit != nil {
			keys = append(keys, hit.GetMemory().GetKey())
		}
		for _, leg := range frame.GetSummary().GetLegs() {
			legs = append(legs, strings.TrimPrefix(leg.GetLeg().String(), "RECALL_LEG_"))
		}
	}
	say("recall.best", keys[0])
	slices.Sort(keys)
	slices.Sort(legs)
	say("recall.keys", strings.Join(keys, "|"))
	say("recall.ends_with_summary", endsWithSummary)
	say("recall.legs", strings.Join(legs, "|"))
}

// --- links -------------------------------------------------------------------------------------------------------

func (s *scenario) linking() {
	for _, link := range []struct {
		source, target string
		strength       float64
	}{{ada, train, 0.8}, {train, garden, 0.3}} {
		linked := must(s.graph.Link(s.context, &graphv1.LinkRequest{
			Source:       named(link.source),
			Target:       named(link.target),
			Relation:     "references",
			Strength:     proto.Float64(link.strength),
			MetadataJson: `{"n":9007199254740993}`,
		}))
		say("link.created", linked.GetCreated())
		say("link.version", linked.GetLink().GetVersion())
		say("link.strength", bits(linked.GetLink().GetStrength()))
		say("link.metadata_json", linked.GetLink().GetMetadataJson())
	}
	stream := must(s.graph.Neighbors(s.context, &graphv1.NeighborsRequest{
		Target:          named(ada),
		KHop:            2,
		Direction:       graphv1.Direction_DIRECTION_OUTGOING,
		IncludeMemories: true,
	}))
	for frame := range frames(stream) {
		for _, near := range frame.GetNeighbors().GetNeighbors() {
			say("neighbour", fmt.Sprintf("%s|%d|%s|%s",
				near.GetMemory().GetKey(), near.GetDepth(), bits(near.GetStrength()), near.GetVia().GetRelation()))
		}
		if summary := frame.GetSummary(); summary != nil {
			say("neighbours.partial", summary.GetPartial())
		}
	}
	_, err := s.graph.Link(s.context, &graphv1.LinkRequest{
		Source: named(ada), Target: named("polyglot.nobody"), Relation: "references",
	})
	tell("link_to_nobody", err)
}

// --- import ------------------------------------------------------------------------------------------------------

func (s *scenario) importing() {
	job := must(s.batch.CreateImport(s.context, &batchv1.CreateImportRequest{
		OnConflict: batchv1.ImportConflict_IMPORT_CONFLICT_FAIL,
		Label:      "polyglot",
	})).GetJob()
	sending := soma.Import{Client: s.through, ID: job.GetImportId(), Records: book(), ChunkRecords: 20}
	done := must(sending.Run(s.context))
	say("import.cut_and_resumed", sending.Connections > 1)
	say("import.state", done.GetState())
	say("import.total", done.GetTotal())
	say("import.stored", done.GetStored())
	say("import.refused", done.GetRefused())
	listed := must(s.batch.ListImportErrors(s.context, &batchv1.ListImportErrorsRequest{ImportId: job.GetImportId()}))
	for _, record := range listed.GetRefused() {
		var paths []string
		for _, violation := range record.GetError().GetViolations() {
			paths = append(paths, violation.GetFieldPath())
		}
		say("import.error", fmt.Sprintf("%d|%d|%s|%s",
			record.GetOffset(), record.GetError().GetCode(), record.GetError().GetReason(), strings.Join(paths, "|")))
	}
	var keys []string
	request := &memoryv1.ListRequest{KeyPrefix: "import.", Order: memoryv1.ListOrder_LIST_ORDER_KEY, PageSize: 70}
	for {
		page := must(s.memory.List(s.context, request))
		for _, memory := range page.GetMemories() {
			keys = append(keys, memory.GetKey())
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	say("import.listed", fmt.Sprintf("%d|%s|%s", len(keys), keys[0], keys[len(keys)-1]))
}

// book holds one record that may not be stored.
func book() iter.Seq[*batchv1.Record] {
	return func(yield func(*batchv1.Record) bool) {
		for number := range records {
			memory := &memoryv1.Memory{
				Key:  fmt.Sprintf("import.%03d", number),
				Text: fmt.Sprintf("Line %03d of a long book, ", number) + strings.Repeat("and so on ", 80),
			}
			if number == refused {
				memory.Relevance = proto.Float64(1.5)
			}
			if !yield(&batchv1.Record{Record: &batchv1.Record_Memory{Memory: memory}}) {
				return
			}
		}
	}
}

// --- refusals ----------------------------------------------------------------------------------------------------

func (s *scenario) refusing(foreignTenant string) {
	_, err := s.memory.Remember(s.context, &memoryv1.RememberRequest{
		Memory: &memoryv1.Memory{Text: "x", Relevance: proto.Float64(2), Tags: []string{"same", "same"}},
	})
	tell("bad_fields", err)
	_, err = s.memory.Get(s.context, &memoryv1.GetRequest{Target: named("polyglot.nobody")})
	tell("no_such_key", err)
	_, err = s.memory.Remember(s.context, &memoryv1.RememberRequest{
		Memory:  &memoryv1.Memory{Key: garden, Text: "Roses in the garden need water every second day"},
		IfMatch: proto.Int64(7),
	})
	tell("wrong_version", err)
	get := &memoryv1.GetRequest{Target: named(ada)}
	_, err = s.asked(get, soma.Identity{Key: s.identity.Key, Tenant: foreignTenant, Plaintext: true})
	tell("foreign_tenant", err)
	_, err = s.asked(get, soma.Identity{Key: "soma_0000000000000000_wrong", Tenant: s.identity.Tenant, Plaintext: true})
	tell("wrong_key", err)
	forgotten := must(s.memory.Forget(s.context, &memoryv1.ForgetRequest{Target: named(garden)}))
	say("forget.durability", forgotten.GetDurability())
	_, err = s.memory.Get(s.context, &memoryv1.GetRequest{Target: named(garden)})
	tell("forgotten", err)
}

// asked gets a memory as somebody else.
func (s *scenario) asked(get *memoryv1.GetRequest, identity soma.Identity) (*memoryv1.GetResponse, error) {
	connection := connect("SOMA_TARGET", identity)
	defer connection.Close()
	return memoryv1.NewMemoryServiceClient(connection).Get(s.context, get)
}
