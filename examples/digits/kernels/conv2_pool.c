/*
 * conv2_pool: the second layer, a 3x3 convolution from 16 to 32 channels, then ReLU,
 * then the maximum of each 2x2 square of positions, which leaves 4x4 of the 8x8.
 *
 *   full[y][x][c]      = bias[c] + sum over dy, dx, k of
 *                        maps[n][y + dy - 1][x + dx - 1][k] * weights[dy][dx][k][c]
 *   pooled[n][v][u][c] = max(0, full[2v][2u][c],     full[2v][2u + 1][c],
 *                               full[2v + 1][2u][c], full[2v + 1][2u + 1][c])
 *
 * The zero in that maximum is the ReLU: it costs nothing where a maximum is taken anyway,
 * and the full maps are never stored. What lies outside the maps counts as zero.
 * Channels come last: the innermost loops walk memory in order, 32 floats at a time.
 * One call computes one image.
 */
void conv2_pool(float pooled[restrict 45][4][4][32],
                const float maps[restrict 45][8][8][16],
                const float weights[restrict 3][3][16][32],
                const float bias[restrict 32],
                int image)
{
    for (int v = 0; v < 4; v++) {
        for (int u = 0; u < 4; u++) {
            float best[32];
            for (int c = 0; c < 32; c++)
                best[c] = 0.0f;

            for (int corner = 0; corner < 4; corner++) {
                int y = 2 * v + corner / 2, x = 2 * u + corner % 2;
                float sum[32];
                for (int c = 0; c < 32; c++)
                    sum[c] = bias[c];

                for (int dy = 0; dy < 3; dy++) {
                    for (int dx = 0; dx < 3; dx++) {
                        int row = y + dy - 1, column = x + dx - 1;
                        if (row < 0 || row >= 8 || column < 0 || column >= 8)
                            continue;
                        for (int k = 0; k < 16; k++) {
                            float value = maps[image][row][column][k];
                            for (int c = 0; c < 32; c++)
                                sum[c] += value * weights[dy][dx][k][c];
                        }
                    }
                }

                for (int c = 0; c < 32; c++)
                    best[c] = sum[c] > best[c] ? sum[c] : best[c];
            }

            for (int c = 0; c < 32; c++)
                pooled[image][v][u][c] = best[c];
        }
    }
}
