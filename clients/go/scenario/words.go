package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"math"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	commonv1 "soma.dev/gen/soma/common/v1"
)

func say(name string, value any) { fmt.Printf("%s: %v\n", name, value) }

func bits(number float64) string { return fmt.Sprintf("%016x", math.Float64bits(number)) }

func joined(numbers []float64, spell func(float64) string) string {
	var spelled []string
	for _, number := range numbers {
		spelled = append(spelled, spell(number))
	}
	return strings.Join(spelled, "|")
}

func named(key string) *commonv1.MemoryTarget {
	return &commonv1.MemoryTarget{
		Target: &commonv1.MemoryTarget_Key{Key: &commonv1.NamespacedKey{Key: key}},
	}
}

// frames reads a stream to its end.
func frames[T any](stream interface{ Recv() (*T, error) }) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for {
			frame, err := stream.Recv()
			if errors.Is(err, io.EOF) || !yield(must(frame, err)) {
				return
			}
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// tell prints why a call was refused.
func tell(name string, err error) {
	told := status.Convert(err)
	say(name+".code", int(told.Code()))
	for _, detail := range told.Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is {
			say(name+".reason", info.GetReason())
			var keys []string
			for key := range info.GetMetadata() {
				keys = append(keys, key)
			}
			slices.Sort(keys)
			for _, key := range keys {
				say(name+".metadata."+key, info.GetMetadata()[key])
			}
		}
	}
	for _, detail := range told.Details() {
		if request, is := detail.(*errdetails.BadRequest); is {
			for _, violation := range request.GetFieldViolations() {
				say(name+".field", violation.GetField()+": "+violation.GetDescription())
			}
		}
	}
}
