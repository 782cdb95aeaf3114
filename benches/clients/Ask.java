import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Arrays;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;

/** Java's HttpClient for benches/clients/run: `java Ask.java 1.1|2 URL` prints a line of JSON for each
 * kind of request, and goes on when it is given a line. */
class Ask {
    static final int MANY = 20, FEW = 3, EVENTS = 5, STEP_MILLIS = 40;
    static HttpClient client;
    static String base;

    interface Act {
        HttpRequest.Builder request() throws Exception;
    }

    /** What came of one request. */
    record Answer(String status, int size, boolean heldBack) {}

    public static void main(String[] arguments) throws Exception {
        // By default it asks for HTTP/2 by `Upgrade: h2c`, and takes HTTP/1.1 where nobody answers to that.
        var version = arguments[0].equals("2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;
        client = HttpClient.newBuilder().version(version).build();
        base = arguments[1];
        byte[] large = new byte[2 << 20];
        Arrays.fill(large, (byte) 'x');
        each("GET 64 KiB", MANY, () -> of("/bytes/65536"));
        each("GET with trailers", MANY, () -> of("/trailers"));
        each("POST 2 MiB", FEW, () -> of("/echo").POST(BodyPublishers.ofByteArray(large)));
        each("POST, no length, 2 MiB", FEW, () -> of("/echo").POST(BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(large))));
        each("POST 2 MiB, Expect", FEW, () -> of("/echo").expectContinue(true).POST(BodyPublishers.ofByteArray(large)));
        each("POST 2 MiB, Expect, 413", FEW, () -> of("/refuse").expectContinue(true).POST(BodyPublishers.ofByteArray(large)));
        each("GET events", FEW, () -> of("/events"));
        each("GET, cut by the server", FEW, () -> of("/broken"));
    }

    static HttpRequest.Builder of(String path) {
        return HttpRequest.newBuilder(URI.create(base + path)).timeout(Duration.ofSeconds(10));
    }

    static Answer answer(HttpRequest request) throws Exception {
        var response = client.send(request, BodyHandlers.ofInputStream());
        long begun = System.nanoTime();
        int size = response.body().readAllBytes().length;
        boolean stream = response.headers().firstValue("content-type").orElse("").startsWith("text/event-stream");
        boolean heldBack = stream && System.nanoTime() - begun < (EVENTS - 1) * STEP_MILLIS * 1_000_000L;
        return new Answer(response.version() + " " + response.statusCode(), size, heldBack);
    }

    static void each(String sent, int requests, Act act) throws Exception {
        int failed = 0;
        long bytes = 0;
        var statuses = new TreeSet<String>();
        var notes = new TreeSet<String>();
        for (int n = 0; n < requests; n++) {
            try {
                var request = act.request().build();
                // Its own timeout does not hold while it waits to be let send a body.
                var task = new FutureTask<>(() -> answer(request));
                var thread = new Thread(task);
                thread.setDaemon(true);
                thread.start();
                var answer = task.get(5, TimeUnit.SECONDS);
                statuses.add(answer.status());
                bytes += answer.size();
                if (answer.heldBack()) notes.add("events held back");
            } catch (ExecutionException error) {
                failed++;
                notes.add(error.getCause().getClass().getSimpleName());
            } catch (Exception error) {
                failed++;
                notes.add(error.getClass().getSimpleName());
            }
        }
        System.out.printf("{\"sent\": \"%s\", \"requests\": %d, \"failed\": %d, \"bytes\": %d, \"status\": \"%s\", \"note\": \"%s\"}%n",
            sent, requests, failed, bytes, String.join(", ", statuses), String.join("; ", notes));
        // Meanwhile it is read how sidescale counted these.
        System.in.read();
    }
}
