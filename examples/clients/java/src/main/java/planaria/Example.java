package planaria;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.nio.file.Path;

/** Publish, read, and see the three outcomes. */
public final class Example {
    public static void main(String[] arguments) throws Exception {
        String url = arguments.length > 0 ? arguments[0] : "tcp://127.0.0.1:5570";
        String key = arguments.length > 1 ? arguments[1] : System.getenv("PLANARIA_KEY");
        String topic = arguments.length > 2 ? arguments[2] : "ORDERS";
        String serverKey = System.getenv("PLANARIA_SERVER_KEY");
        String token = System.getenv("PLANARIA_TOKEN");
        try (Client client = new Client(url, key == null ? null : Path.of(key), serverKey, token, "java-example")) {
            run(client, topic);
        }
    }

    private static void run(Client client, String topic) throws InterruptedException {
        JsonObject greeting = ok(client.hello());
        System.out.println("hello " + (greeting.has("principal") ? greeting.get("principal").getAsString() : "-"));
        long offset = end(client, topic);
        for (String dedupId : new String[] {"java-1", "java-2", "java-2"}) {
            JsonObject written = ok(client.publish(topic, "k", "order " + dedupId, dedupId));
            System.out.println("published duplicate=" + written.get("duplicate").getAsBoolean());
        }
        for (int count = 0; count < 2; ) {
            JsonObject page = ok(client.fetch(topic, 0, offset, 5_000));
            for (JsonElement each : page.getAsJsonArray("records")) {
                JsonObject found = each.getAsJsonObject();
                System.out.println(
                        "consumed " + found.get("key_text").getAsString() + " " + found.get("value_text").getAsString());
                count++;
            }
            offset = page.get("next_offset").getAsLong();
        }
        JsonObject internal = new JsonObject();
        internal.addProperty("topic", "__offsets");
        if (client.ask("delete_topic", internal, 10_000) instanceof Client.Fail fail) {
            System.out.println("fail " + fail.code() + " retriable=" + fail.retriable());
        }
        JsonObject late = new JsonObject();
        late.addProperty("topic", topic);
        late.addProperty("partition", 0);
        late.addProperty("offset", end(client, topic));
        late.addProperty("max_wait_ms", 30_000);
        System.out.println(client.ask("fetch", late, 200) instanceof Client.Unknown ? "unknown" : "answered");
    }

    private static long end(Client client, String topic) throws InterruptedException {
        JsonObject fields = new JsonObject();
        fields.addProperty("topic", topic);
        fields.addProperty("partition", 0);
        fields.addProperty("at", "latest");
        return ok(client.repeated("list_offsets", fields, 30_000, 10_000)).get("offset").getAsLong();
    }

    private static JsonObject ok(Client.Outcome outcome) {
        if (outcome instanceof Client.Ok ok) {
            return ok.reply();
        }
        throw new IllegalStateException(outcome.toString());
    }
}
