/*
 * conv1: the first layer, a 3x3 convolution from 1 to 16 channels, then ReLU.
 *
 *   maps[n][y][x][c] = max(0, bias[c] + sum over dy, dx of
 *                             images[n][y + dy - 1][x + dx - 1] * weights[dy][dx][c])
 *
 * What lies outside the picture counts as zero, so 8x8 pixels stay 8x8 positions.
 * Channels come last: the innermost loops walk memory in order, 16 floats at a time.
 * One call computes one image; calls for different images share only what they read.
 */
void conv1(float maps[restrict 45][8][8][16],
           const float images[restrict 45][8][8],
           const float weights[restrict 3][3][16],
           const float bias[restrict 16],
           int image)
{
    for (int y = 0; y < 8; y++) {
        for (int x = 0; x < 8; x++) {
            float sum[16];
            for (int c = 0; c < 16; c++)
                sum[c] = bias[c];

            for (int dy = 0; dy < 3; dy++) {
                for (int dx = 0; dx < 3; dx++) {
                    int row = y + dy - 1, column = x + dx - 1;
                    if (row < 0 || row >= 8 || column < 0 || column >= 8)
                        continue;
                    float pixel = images[image][row][column];
                    for (int c = 0; c < 16; c++)
                        sum[c] += pixel * weights[dy][dx][c];
                }
            }

            for (int c = 0; c < 16; c++)
                maps[image][y][x][c] = sum[c] > 0.0f ? sum[c] : 0.0f;
        }
    }
}
