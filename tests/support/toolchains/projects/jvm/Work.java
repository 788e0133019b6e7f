import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardWatchEventKinds;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;

/** Threads, memory, processes, files, watches and sockets: what builds and servers on the JVM are made of. */
public class Work {
    public static void main(String[] arguments) throws Exception {
        require(IntStream.range(0, 1_000_000).parallel().asLongStream().sum() == 499_999_500_000L, "threads");
        byte[][] garbage = new byte[64][];
        for (int i = 0; i < 2_000; i++) garbage[i % 64] = new byte[1 << 16];
        Process child = new ProcessBuilder("cat").start();
        child.getOutputStream().close();
        require(child.waitFor() == 0, "a child");
        Path place = Files.createTempDirectory("work");
        var watcher = place.getFileSystem().newWatchService();
        place.register(watcher, StandardWatchEventKinds.ENTRY_CREATE);
        Path file = Files.write(place.resolve("x"), new byte[4096]);
        require(watcher.poll(20, TimeUnit.SECONDS) != null, "a watch");
        try (var channel = FileChannel.open(file); var lock = FileChannel.open(file, java.nio.file.StandardOpenOption.WRITE).lock()) {
            require(channel.map(FileChannel.MapMode.READ_ONLY, 0, 4096).get(7) == 0 && lock.isValid(), "a mapping");
        }
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> { exchange.sendResponseHeaders(204, -1); exchange.close(); });
        server.start();
        var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/")).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        server.stop(0);
        require(answer.statusCode() == 204, "a server");
        System.exit(0);
    }

    private static void require(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }
}
