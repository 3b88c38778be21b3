/*
 * dense: the last layer, from the 4*4*32 = 512 features of an image to one number for
 * each of the ten digits.
 *
 *   logits[n][d] = bias[d] + sum over f of features[n][f] * weights[f][d]
 *
 * The features are the pooled maps, read as one row. The weights of one feature lie side
 * by side, so that the ten sums grow together. One call computes one image.
 */
void dense(float logits[restrict 45][10],
           const float features[restrict 45][512],
           const float weights[restrict 512][10],
           const float bias[restrict 10],
           int image)
{
    float sum[10];
    for (int d = 0; d < 10; d++)
        sum[d] = bias[d];

    for (int f = 0; f < 512; f++) {
        float feature = features[image][f];
        for (int d = 0; d < 10; d++)
            sum[d] += feature * weights[f][d];
    }

    for (int d = 0; d < 10; d++)
        logits[image][d] = sum[d];
}
