package dev.soma.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import dev.soma.common.v1.MemoryTarget;
import dev.soma.common.v1.NamespacedKey;
import io.grpc.protobuf.StatusProto;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.TreeMap;
import java.util.concurrent.Callable;

/** What the scenario says and how. */
final class Words {
  private static final PrintStream OUT =
      new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

  private Words() {}

  static void say(String name, Object value) {
    OUT.print(name + ": " + value + "\n");
  }

  static String bits(double number) {
    return HexFormat.of().toHexDigits(Double.doubleToRawLongBits(number));
  }

  static MemoryTarget named(String key) {
    return MemoryTarget.newBuilder().setKey(NamespacedKey.newBuilder().setKey(key)).build();
  }

  static void refused(String name, Callable<?> call) {
    try {
      call.call();
      say(name + ".code", 0);
    } catch (Exception error) {
      com.google.rpc.Status status = StatusProto.fromThrowable(error);
      say(name + ".code", status.getCode());
      for (Any detail : status.getDetailsList()) {
        tell(name, detail);
      }
    }
  }

  private static void tell(String name, Any detail) {
    try {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        say(name + ".reason", info.getReason());
        new TreeMap<>(info.getMetadataMap()).forEach((key, value) -> say(name + ".metadata." + key, value));
      }
      if (detail.is(BadRequest.class)) {
        for (BadRequest.FieldViolation violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
          say(name + ".field", violation.getField() + ": " + violation.getDescription());
        }
      }
    } catch (InvalidProtocolBufferException broken) {
      throw new IllegalStateException(broken);
    }
  }
}
