package soma

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	batchv1 "soma.dev/gen/soma/batch/v1"
)

const (
	attempts    = 8 // connections in a row that may break without anything having been acknowledged
	firstWait   = 100 * time.Millisecond
	longestWait = 2 * time.Second
)

// Import sends the records of one import job and finishes it, through any number of broken connections.
//
// What was sent is kept until it is acknowledged, so Records may be a source that can be read only once. What the job
// has dealt with already is passed over: a process that died is followed by one that imports the same records.
type Import struct {
	Client  batchv1.BatchServiceClient
	ID      string
	Records iter.Seq[*batchv1.Record]
	// ChunkRecords is how many records travel together, at most 1,000 and 3 MiB; 0 is 500.
	ChunkRecords int

	// Connections counts the streams that were opened.
	Connections int

	next           func() (*batchv1.Record, bool)
	read           int64
	acknowledged   int64
	unacknowledged []*batchv1.ImportChunk
}

type stream = interface {
	Send(*batchv1.ImportRecordsRequest) error
	Recv() (*batchv1.ImportRecordsResponse, error)
}

// drained is the server's wish to be left and come back to.
type drained struct{ after time.Duration }

func (drained) Error() string { return "the server is shutting down" }

// Run returns the finished job, or the status that ended it.
func (i *Import) Run(ctx context.Context) (*batchv1.ImportJob, error) {
	next, stop := iter.Pull(i.Records)
	defer stop()
	i.next = next
	for failed := 0; ; {
		before := i.acknowledged
		job, err := i.connection(ctx)
		if err == nil {
			return job, nil
		}
		var wait time.Duration
		if drain := (drained{}); errors.As(err, &drain) {
			failed, wait = 0, drain.after
		} else {
			if i.acknowledged > before {
				failed = 0
			}
			failed++
			if !broken(err) || failed >= attempts {
				return nil, err
			}
			wait = min(longestWait, firstWait<<failed)
		}
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-time.After(wait):
		}
	}
}

func (i *Import) connection(ctx context.Context) (*batchv1.ImportJob, error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	i.Connections++
	call, err := i.Client.ImportRecords(ctx)
	if err != nil {
		return nil, err
	}
	open := &batchv1.OpenImport{ImportId: i.ID}
	if err := send(call, &batchv1.ImportRecordsRequest{Frame: &batchv1.ImportRecordsRequest_Open{Open: open}}); err != nil {
		return nil, err
	}
	frame, err := receive(call)
	if err != nil {
		return nil, err
	}
	i.goOnFrom(frame.GetOpened().GetCommittedOffset())
	again, credit := i.unacknowledged, frame.GetOpened().GetCredit()
	for {
		for credit > 0 {
			var chunk *batchv1.ImportChunk
			if len(again) > 0 {
				chunk, again = again[0], again[1:]
			} else if chunk = i.nextChunk(); chunk == nil {
				break
			}
			frame := &batchv1.ImportRecordsRequest{Frame: &batchv1.ImportRecordsRequest_Chunk{Chunk: chunk}}
			if err := send(call, frame); err != nil {
				return nil, err
			}
			credit--
		}
		if len(i.unacknowledged) == 0 {
			break
		}
		frame, err := receive(call)
		if err != nil {
			return nil, err
		}
		i.acknowledge(frame.GetAck().GetCommittedOffset())
		credit += frame.GetAck().GetCredit()
	}
	finish := &batchv1.FinishImport{Total: i.read}
	if err := send(call, &batchv1.ImportRecordsRequest{Frame: &batchv1.ImportRecordsRequest_Finish{Finish: finish}}); err != nil {
		return nil, err
	}
	for {
		frame, err := receive(call)
		if err != nil {
			return nil, err
		}
		if finished := frame.GetFinished(); finished != nil {
			return finished.GetJob(), nil
		}
	}
}

// goOnFrom passes over what the job has dealt with.
func (i *Import) goOnFrom(offset int64) {
	i.acknowledge(offset)
	for i.read < offset {
		if _, more := i.next(); !more {
			return
		}
		i.read++
	}
}

func (i *Import) acknowledge(offset int64) {
	i.acknowledged = max(i.acknowledged, offset)
	for len(i.unacknowledged) > 0 {
		first := i.unacknowledged[0]
		if first.GetOffset()+int64(len(first.GetRecords())) > offset {
			return
		}
		i.unacknowledged = i.unacknowledged[1:]
	}
}

// nextChunk reads the next records and keeps them until they are acknowledged; nil at the end.
func (i *Import) nextChunk() *batchv1.ImportChunk {
	chunk := &batchv1.ImportChunk{Offset: i.read}
	size := i.ChunkRecords
	if size == 0 {
		size = 500
	}
	for len(chunk.Records) < size {
		record, more := i.next()
		if !more {
			break
		}
		chunk.Records = append(chunk.Records, record)
		i.read++
	}
	if len(chunk.Records) == 0 {
		return nil
	}
	i.unacknowledged = append(i.unacknowledged, chunk)
	return chunk
}

// send leaves it to receive to tell why the server has ended the stream.
func send(call stream, frame *batchv1.ImportRecordsRequest) error {
	err := call.Send(frame)
	if errors.Is(err, io.EOF) {
		_, err = receive(call)
	}
	return err
}

func receive(call stream) (*batchv1.ImportRecordsResponse, error) {
	frame, err := call.Recv()
	if errors.Is(err, io.EOF) {
		return nil, status.Error(codes.Unavailable, "the import's stream ended early")
	}
	if drain := frame.GetDrain(); drain != nil {
		return nil, drained{drain.GetReconnectAfter().AsDuration()}
	}
	return frame, err
}

// broken tells a lost connection, which has no reason, from a refusal, which has one.
func broken(err error) bool {
	told := status.Convert(err)
	for _, detail := range told.Details() {
		if _, is := detail.(*errdetails.ErrorInfo); is {
			return told.Code() == codes.Unavailable
		}
	}
	switch told.Code() {
	case codes.Unavailable, codes.Internal, codes.Unknown, codes.Canceled:
		return true
	}
	return false
}
