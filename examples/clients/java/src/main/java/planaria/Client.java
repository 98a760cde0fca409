package planaria;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.zeromq.SocketType;
import org.zeromq.ZContext;
import org.zeromq.ZMQ;

/**
 * A thin client of Planaria: one DEALER socket, headers in JSON, CURVE. docs/protocol.md has the fields of all requests.
 *
 * <p>For one thread: a socket of JeroMQ belongs to the thread that uses it.
 */
public final class Client implements AutoCloseable {
    private static final long FIRST_PAUSE_MS = 50;
    private static final long LONGEST_PAUSE_MS = 2_000;
    private static final Pattern LINE = Pattern.compile("^(\\w+)\\s*=\\s*\"([^\"]*)\"", Pattern.MULTILINE);

    /** The outcome of a request. */
    public sealed interface Outcome permits Ok, Fail, Unknown {}

    /** The broker has done it. */
    public record Ok(JsonObject reply) implements Outcome {}

    /** The broker has not done it. */
    public record Fail(String code, String message, boolean retriable, long retryAfterMs) implements Outcome {}

    /** No answer before the deadline: it may have been done, now or later. Repeat it only if that does no harm. */
    public record Unknown() implements Outcome {}

    private final ZContext context = new ZContext();
    private final ZMQ.Socket socket = context.createSocket(SocketType.DEALER);
    private final ZMQ.Poller poller = context.createPoller(1);
    private final JsonObject hello = new JsonObject();
    private long lastId;

    /**
     * Connect in the background, and again after each interruption. `keyFile` is one of `planaria key create`; without it
     * `serverKey` and `token` are needed; with neither, the broker must have no authentication.
     */
    public Client(String url, Path keyFile, String serverKey, String token, String clientId) throws IOException {
        Map<String, String> key = keyFile == null ? Map.of() : readKeyFile(keyFile);
        String pinned = serverKey != null ? serverKey : key.get("server_key");
        if (pinned != null) {
            ZMQ.Curve.KeyPair own = keyFile == null
                    ? ZMQ.Curve.generateKeyPair()
                    : new ZMQ.Curve.KeyPair(key.get("public_key"), key.get("secret_key"));
            socket.setCurveServerKey(pinned.getBytes(ZMQ.CHARSET));
            socket.setCurvePublicKey(own.publicKey.getBytes(ZMQ.CHARSET));
            socket.setCurveSecretKey(own.secretKey.getBytes(ZMQ.CHARSET));
        }
        hello.addProperty("version", 1);
        hello.addProperty("client_id", clientId);
        if (token != null) {
            hello.addProperty("token", token);
        }
        socket.setLinger(0);
        socket.setHeartbeatIvl(10_000);
        socket.setHeartbeatTimeout(30_000);
        socket.connect(url);
        poller.register(socket, ZMQ.Poller.POLLIN);
    }

    /** Greet the broker; needed before other requests. */
    public Outcome hello() throws InterruptedException {
        return repeated("hello", hello, 30_000, 10_000);
    }

    /** Send a request once, and return its outcome. */
    public Outcome ask(String op, JsonObject fields, long timeoutMs) {
        long id = ++lastId;
        JsonObject header = fields.deepCopy();
        header.addProperty("op", op);
        header.addProperty("id", id);
        if (!op.equals("hello")) {
            header.addProperty("greeted", true);
        }
        send(header);
        JsonObject reply = replyTo(id, System.nanoTime() + timeoutMs * 1_000_000);
        if (reply == null) {
            JsonObject cancel = new JsonObject();
            cancel.addProperty("op", "cancel");
            cancel.addProperty("request_id", id);
            send(cancel);
            return new Unknown();
        }
        if (!reply.has("error")) {
            return new Ok(reply);
        }
        return fail(reply.getAsJsonObject("error"));
    }

    /** Send a request that does no harm when it is done twice, until its outcome is known and final, or time is over. */
    public Outcome repeated(String op, JsonObject fields, long timeoutMs, long attemptMs) throws InterruptedException {
        long ends = System.nanoTime() + timeoutMs * 1_000_000;
        for (long pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
            long leftMs = Math.max(1, (ends - System.nanoTime()) / 1_000_000);
            Outcome outcome = ask(op, fields, Math.min(attemptMs, leftMs));
            boolean isFinal = outcome instanceof Ok || outcome instanceof Fail fail && !fail.retriable();
            if (isFinal || System.nanoTime() >= ends) {
                return outcome;
            }
            if (outcome instanceof Fail fail && fail.code().equals("HELLO_REQUIRED")) {
                ask("hello", hello, attemptMs);
            }
            Thread.sleep(outcome instanceof Fail fail && fail.retryAfterMs() > 0 ? fail.retryAfterMs() : pauseMs);
        }
    }

    /** Publish one record. The dedup id makes a repetition harmless. */
    public Outcome publish(String topic, String key, String value, String dedupId) throws InterruptedException {
        JsonObject made = new JsonObject();
        made.addProperty("key_text", key);
        made.addProperty("value_text", value);
        made.addProperty("dedup_id", dedupId);
        JsonArray records = new JsonArray();
        records.add(made);
        JsonObject fields = new JsonObject();
        fields.addProperty("topic", topic);
        fields.add("records", records);
        Outcome outcome = repeated("publish", fields, 30_000, 10_000);
        if (!(outcome instanceof Ok ok)) {
            return outcome;
        }
        JsonObject written = ok.reply().getAsJsonArray("records").get(0).getAsJsonObject();
        boolean isWritten = !written.has("error") || written.get("error").isJsonNull();
        return isWritten ? new Ok(written) : fail(written.getAsJsonObject("error"));
    }

    /** Return records of one partition from an offset on, and the next offset; none after `waitMs`. */
    public Outcome fetch(String topic, int partition, long offset, long waitMs) throws InterruptedException {
        JsonObject fields = new JsonObject();
        fields.addProperty("topic", topic);
        fields.addProperty("partition", partition);
        fields.addProperty("offset", offset);
        fields.addProperty("max_wait_ms", waitMs);
        return repeated("fetch", fields, waitMs + 30_000, waitMs + 10_000);
    }

    @Override
    public void close() {
        poller.close();
        context.close();
    }

    private void send(JsonObject header) {
        socket.send(header.toString().getBytes(java.nio.charset.StandardCharsets.UTF_8), 0);
    }

    /** Return the reply; earlier requests' late ones are dropped. */
    private JsonObject replyTo(long id, long deadlineNs) {
        while (true) {
            long leftMs = (deadlineNs - System.nanoTime()) / 1_000_000;
            if (leftMs <= 0 || poller.poll(leftMs) < 0) {
                return null;
            }
            if (!poller.pollin(0)) {
                continue;
            }
            String header = socket.recvStr();
            while (socket.hasReceiveMore()) {
                socket.recv();
            }
            JsonObject reply = JsonParser.parseString(header).getAsJsonObject();
            if (reply.has("id") && reply.get("id").getAsLong() == id) {
                return reply;
            }
        }
    }

    private static Fail fail(JsonObject error) {
        long afterMs = error.has("retry_after_ms") ? error.get("retry_after_ms").getAsLong() : 0;
        boolean retriable = error.has("retriable") && error.get("retriable").getAsBoolean();
        return new Fail(error.get("code").getAsString(), error.get("message").getAsString(), retriable, afterMs);
    }

    private static Map<String, String> readKeyFile(Path path) throws IOException {
        for (PosixFilePermission each : Files.getPosixFilePermissions(path)) {
            if (!each.name().startsWith("OWNER_")) {
                throw new IOException(path + ": others may read it; change that with chmod 600");
            }
        }
        Map<String, String> found = new HashMap<>();
        Matcher line = LINE.matcher(Files.readString(path));
        while (line.find()) {
            found.put(line.group(1), line.group(2));
        }
        return found;
    }
}
